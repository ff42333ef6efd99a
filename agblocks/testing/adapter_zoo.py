"""Small models with one site each, of every sort of module that adapters sit on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import (
    HookPoint,
    LayerNorm,
    MultiQueryAttention,
    RMSBatchNorm,
    SelfAttention,
    StandardizedConv1d,
    role,
)
from ..layers.grouped import GroupedAttention
from ..layers.relative import RelativeAttention

C, LENGTH, BATCH = 32, 12, 2


class Sandwich(nn.Module):
    """A module between two others, so that what it reads and gives are not the model's own."""

    def __init__(self, first: nn.Module, site: nn.Module, last: nn.Module):
        super().__init__()
        self.first, self.site, self.last = first, site, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.site(self.first(x)))


class _Attention(nn.Module):
    """An attention layer with its residual, over rows (batch, positions, channels)."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention
        self.last = nn.Linear(C, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.attention(x))


@dataclass(frozen=True)
class Bench:
    """A model, the name of the module to adapt, and an input."""

    name: str
    make: Callable[[], nn.Module]
    site: str
    draw: Callable[[torch.Generator], Tensor]

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The model in evaluation, with the same weights at every call; norms and zero outputs randomised too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = self.make()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() < 2 or not bool(parameter.any()):
                        parameter.add_(torch.randn_like(parameter) * 0.3)
        return model.to(dtype).eval()

    def input(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The same input at every call."""
        x = self.draw(torch.Generator().manual_seed(2))
        return x.to(dtype) if x.is_floating_point() else x


def _rows(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, LENGTH, C, generator=generator, dtype=torch.float64)


def _track(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, C, LENGTH, generator=generator, dtype=torch.float64)


def _image(generator: torch.Generator) -> Tensor:
    return torch.randn(BATCH, 3, 9, 8, generator=generator, dtype=torch.float64)


def _dna(generator: torch.Generator) -> Tensor:
    letters = torch.randint(4, (BATCH, LENGTH), generator=generator)
    dna = nn.functional.one_hot(letters, 4).double().transpose(1, 2)
    dna[:, :, 3:7] = 0  # unknown bases
    return dna


def _letters(generator: torch.Generator) -> Tensor:
    return torch.randint(7, (BATCH, LENGTH), generator=generator)


def _linear(site: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Sandwich(nn.Linear(C, C), _again(site), nn.Linear(_out(site), 3))


def _again(module: nn.Module) -> nn.Module:
    import copy

    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh


def _out(module: nn.Module) -> int:
    return int(getattr(module, "out_features", getattr(module, "out_channels", C)))


def _conv(site: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Sandwich(nn.Conv1d(C, C, 1), _again(site), nn.Conv1d(_out(site), 3, 1))


def _mlp() -> nn.Module:
    up, down = role(nn.Linear(C, 2 * C), "mlp.up"), role(nn.Linear(2 * C, C), "mlp.down")
    mlp = role(nn.Sequential(up, nn.ReLU(), down), "block.mlp", width=C)
    return Sandwich(nn.Linear(C, C), mlp, nn.Linear(C, 3))


def _stem() -> nn.Module:
    stem = role(nn.Conv1d(4, C, 5, padding=2), "stem")
    return Sandwich(nn.Identity(), stem, nn.Conv1d(C, 3, 1))


def _point() -> nn.Module:
    return Sandwich(nn.Linear(C, C), role(HookPoint(), "block.out", width=C), nn.Linear(C, 3))


@cache
def benches() -> tuple[Bench, ...]:
    """Every model of the zoo."""
    with torch.random.fork_rng(devices=[]):
        return _benches()


def _benches() -> tuple[Bench, ...]:
    linears = {
        "linear": nn.Linear(C, 24),
        "linear without bias": nn.Linear(C, C, bias=False),
        "layer norm": LayerNorm(C),
        "torch layer norm": nn.LayerNorm(C),
        "batch norm by rows": RMSBatchNorm(C, dim=-1),
    }
    convs = {
        "conv": nn.Conv1d(C, 24, 3, padding=1),
        "conv strided, dilated, in groups": nn.Conv1d(C, 16, 3, stride=2, dilation=2, padding=2, groups=2),
        "conv of even width, circular": nn.Conv1d(C, C, 4, padding="same", padding_mode="circular", bias=False),
        "standardised conv": StandardizedConv1d(C, 24, 5),
        "standardised conv of even width": StandardizedConv1d(C, C, 4),
        "batch norm": nn.BatchNorm1d(C),
        "rms batch norm": RMSBatchNorm(C),
    }
    attentions: dict[str, Callable[[], nn.Module]] = {
        "kv of multi-query attention": lambda: MultiQueryAttention(C, heads=4, key_dim=8, value_dim=6, repeat=1),
        "kv of relative attention": lambda: RelativeAttention(
            C, heads=4, key_dim=8, dropout=0.0, position_dropout=0.0, train_length=16
        ),
        "kv of grouped attention": lambda: GroupedAttention(C, heads=4, kv_heads=2, rotary_dim=8),
        "kv of self-attention": lambda: SelfAttention(C, heads=4),
    }
    return (
        *(Bench(name, _linear(site), "site", _rows) for name, site in linears.items()),
        *(Bench(name, _conv(site), "site", _track) for name, site in convs.items()),
        Bench("conv in two dimensions", lambda: Sandwich(
            nn.Conv2d(3, C, 1), nn.Conv2d(C, 24, 3, padding=1), nn.Conv2d(24, 3, 1)), "site", _image),
        Bench("embedding", lambda: Sandwich(nn.Identity(), nn.Embedding(7, C), nn.Linear(C, 3)), "site", _letters),
        Bench("mlp", _mlp, "site", _rows),
        Bench("hook point", _point, "site", _rows),
        Bench("stem", _stem, "site", _dna),
        *(Bench(name, _of(make), "attention.kv", _rows) for name, make in attentions.items()),
        Bench("self-attention", _self_attention, "attention", _rows),
    )  # fmt: skip


def _self_attention() -> nn.Module:
    return _Attention(role(SelfAttention(C, heads=4), "block.attn", width=C))


def _of(make: Callable[[], nn.Module]) -> Callable[[], Any]:
    return lambda: _Attention(make())
