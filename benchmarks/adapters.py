"""Adapters by hooks beside peft (module replacement), in one process: eager, compiled, empty, and attaching them.

`python -m benchmarks adapters`; `python -m benchmarks.adapters [words]` runs the rows whose name has any of the words.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks import build
from agblocks._torchvision import mend
from agblocks.adapters import adapt

from .timing import Ratio, pair

SIX = ("q", "k", "v", "out", "up", "down")
CONFIGURATIONS = {  # name: width, layers, batch, positions, targets, calls a run
    "d64 L4 B2 T32, q and v": (64, 4, 2, 32, ("q", "v"), 20),
    "d64 L4 B2 T32, all six": (64, 4, 2, 32, SIX, 20),
    "d256 L4 B4 T256, q and v": (256, 4, 4, 256, ("q", "v"), 1),
    "d256 L4 B4 T256, all six": (256, 4, 4, 256, SIX, 1),
    "d512 L2 B1 T1024, q and v": (512, 2, 1, 1024, ("q", "v"), 1),
}
PAIRS = 30


class Layer(nn.Module):
    """A layer of a transformer, its norms first, with six linear maps."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (m(h).unflatten(-1, (4, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Replaced(nn.Module):
    """LoRA the other way, by a module in the place of another."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) * 0.02)
        self.B = nn.Parameter(torch.randn(linear.out_features, rank) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.A) * self.scale, self.B)


def transformer(width: int, layers: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Layer(width) for _ in range(layers)))


def ours(model: nn.Module, targets: tuple[str, ...]) -> nn.Module:
    adapted = adapt(model, f"lora:glob={'+'.join(f'*.{t}' for t in targets)},rank=8,alpha=16")
    return away(adapted)


def peft(model: nn.Module, targets: tuple[str, ...]) -> nn.Module:
    mend()
    from peft import LoraConfig, get_peft_model

    return away(get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=list(targets))))


def replaced(model: nn.Module, targets: tuple[str, ...]) -> nn.Module:
    model.requires_grad_(False)
    for layer in model:
        for name in targets:
            setattr(layer, name, Replaced(getattr(layer, name), 8, 16))
    return model


def away(model: nn.Module) -> nn.Module:
    """What trains is no longer zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.02)
    return model


def forward(model: nn.Module, x: Tensor) -> Callable[[], object]:
    model.eval()

    def work() -> object:
        with torch.no_grad():
            return model(x)

    return work


def training(model: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> Callable[[], object]:
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    call = model if call is None else call

    def work() -> None:
        for parameter in parameters:
            parameter.grad = None
        call(x).sum().backward()

    return work


def paired(mine: Callable[[], object], other: Callable[[], object], calls: int, pairs: int = PAIRS) -> Ratio:
    return pair(mine, other, pairs, batch=calls, timer=time.process_time)[2]


def eager(name: str) -> list[str]:
    width, layers, batch, length, targets, calls = CONFIGURATIONS[name]
    model, x = transformer(width, layers), torch.randn(batch, length, width)
    mine, theirs = ours(copy.deepcopy(model), targets), peft(copy.deepcopy(model), targets)
    assert sum(p.numel() for p in mine.parameters() if p.requires_grad) == sum(
        p.numel() for p in theirs.parameters() if p.requires_grad
    )
    return [
        f"| {name}, {what} | {paired(work(mine, x), work(theirs, x), calls)} | 1.0 |"
        for what, work in (("forward and backward", training), ("forward", forward))
    ]


def empty(name: str) -> list[str]:
    width, layers, batch, length, targets, calls = CONFIGURATIONS[name]
    bare, x = transformer(width, layers).requires_grad_(False), torch.randn(batch, length, width)
    adapted = ours(copy.deepcopy(bare), targets)
    adapted.bank.activate()
    return [f"| {name}, empty sites beside the bare model, forward | "
            f"{paired(forward(adapted, x), forward(bare, x), calls)} | 1.03 |"]  # fmt: skip


def compiled(name: str) -> list[str]:
    width, layers, batch, length, targets, calls = CONFIGURATIONS[name]
    model, x = transformer(width, layers), torch.randn(batch, length, width)
    sides = [make(copy.deepcopy(model), targets) for make in (ours, replaced, peft)]
    graphs = torch._dynamo.explain(sides[0].forward)(x).graph_count
    torch._dynamo.reset()
    calling = [torch.compile(side, fullgraph=True) for side in sides]
    rows = []
    for index, other in ((1, "a replacement written by hand"), (2, "peft")):
        works = [training(sides[i], x, calling[i]) for i in (0, index)]
        rows.append(f"| {name}, compiled, beside {other}, forward and backward, {graphs} graph | "
                    f"{paired(*works, calls)} | {'1.05' if index == 1 else ''} |")  # fmt: skip
        works = [forward(calling[i], x) for i in (0, index)]
        rows.append(f"| {name}, compiled, beside {other}, forward | {paired(*works, calls)} | |")
    return rows


def attaching(where: str) -> list[str]:
    if where == "meta":
        model = build("alphagenome", device="meta")
    else:
        model = build("alphagenome_small", "tower.depth=9")
    spec = "lora:role=attn.q+attn.k+attn.v+attn.out+mlp.up+mlp.down,glob=tower.**,expect=54"
    seconds = []
    for _ in range(13):
        start = time.process_time()
        adapted = adapt(model, spec)
        seconds.append(time.process_time() - start)
        adapted.detach()
    middle = sorted(seconds[3:])[5]
    return [f"| attaching LoRA to 54 linear maps of AlphaGenome's tower, {where} | {1000 * middle:.1f} ms | 50 ms |"]


CHAIN = """
class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(4, 4) for _ in range(123)).requires_grad_(False)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x
"""


def guards() -> list[str]:
    """What it costs that compiled code guards hook dictionaries: a bare model of many modules."""
    import torch._dynamo.config as config

    works, x = [], torch.randn(1, 4)
    for skip in (False, True):
        torch.compiler.reset() if not works else None
        config.skip_nnmodule_hook_guards = skip
        own = {"nn": nn}  # code of its own each, as compiled code is kept by the code it was made from
        exec(CHAIN, own)
        works.append(forward(torch.compile(own["Chain"](), backend="eager"), x))
        works[-1]()
    config.skip_nnmodule_hook_guards = False
    with_guards, without, ratio = pair(*works, PAIRS, batch=50, timer=time.process_time)
    return [f"| compiled call, 123 modules, with guards of hooks beside without, "
            f"{1e6 * (with_guards.median - without.median):.0f} microseconds | {ratio} | |"]  # fmt: skip


ROWS: dict[str, Callable[[], list[str]]] = {
    **{name: lambda name=name: eager(name) for name in CONFIGURATIONS},
    **{f"empty {name}": lambda name=name: empty(name) for name in list(CONFIGURATIONS)[:4]},
    **{f"attaching {where}": lambda where=where: attaching(where) for where in ("meta", "real")},
    "guards": guards,
    **{f"compiled {name}": lambda name=name: compiled(name) for name in list(CONFIGURATIONS)[1:2]},
}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    words = [word for word in sys.argv[1:] if word != "adapters"]
    print("| work | ours / other | asked |\n|---|---|---|")
    for name, rows in ROWS.items():
        if not words or any(word in name for word in words):
            for row in rows():
                print(row, flush=True)


if __name__ == "__main__":
    main()
