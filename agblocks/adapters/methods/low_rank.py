"""LoRA and its relatives: a product of two thin matrices beside a weight."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, PositiveFloat, Probability

from ..adapter import Adapter, Phase, given, main, remade
from ..affine import Affine, read, unmapped
from ..parts.published import published
from ..place import Place, along

Init = Literal["kaiming", "he", "gaussian", "pissa"]


@adapter("lora", role=("attn.q", "attn.v"))
class Lora(Adapter):
    """`y = W x + b + s B A x`: a change of low rank beside a frozen weight.

    Sites: linear maps, embeddings, convolutions (then `A` is a convolution to `rank` channels, `B` one of width 1).
    Parameters: rank * (in + out); convolution rank * (in / groups * kernel + out). No change at the start (B = 0);
    merges exactly. `s = alpha / rank`, or `alpha / sqrt(rank)` with `rslora`. `A` by `init`: kaiming U(+-1 / sqrt(in)),
    he U(+-sqrt(6 / in)), gaussian N(0, 1 / rank); pissa takes A and B from the weight's first singular vectors, and
    subtracts what they are at the start, so the weight stays as it is (twice the work). `center` takes off the
    mean of A over inputs: on a standardised convolution, whose kernels have none, it makes merging exact; by default it
    is on there and off elsewhere. `dropout`, in training: of what A reads, and at embeddings of what is added.
    `lr_ratio`: learning rate of B over that of A (LoRA+: 16).
    Source: Hu et al. 2021; Kalajdzievski 2023 (rsLoRA), Meng et al. 2024 (PiSSA), Hayou et al. 2024 (LoRA+).
    Use when: some hundreds of measurements or more; the usual first choice.
    """

    A0: Tensor
    B0: Tensor

    def __init__(
        self,
        place: Place,
        *,
        rank: Positive = 8,
        alpha: PositiveFloat = 16.0,
        dropout: Probability = 0.0,
        rslora: bool = False,
        init: Init = "kaiming",
        center: bool | None = None,
        lr_ratio: PositiveFloat = 1.0,
    ):
        self.suits(place)
        super().__init__(place)
        module = place.module
        if why := unmapped(module):
            raise place.refuse(self.kind.name, why)
        weight = place.weight
        if weight is None or weight.dim() < 2:
            raise place.refuse(self.kind.name, "its weight is no matrix or kernel")
        self.embeds = isinstance(module, nn.Embedding)
        shape = weight.shape[::-1] if self.embeds else weight.shape
        self.groups = int(getattr(module, "groups", 1)) if isinstance(module, _ConvNd) else 1
        most = min(shape[0], math.prod(shape[1:]) * self.groups)
        if rank > most:
            raise place.refuse(self.kind.name, f"rank {rank} is more than its {most}")
        if rank % self.groups:
            raise place.refuse(self.kind.name, f"rank {rank} does not share out {self.groups} groups")
        self.rank, self.init, self.dropout, self.lr_ratio = rank, init, dropout, lr_ratio
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        self.centred = (center is None and hasattr(module, "effective_weight")) or bool(center)
        self.plain = weight.dim() == 2 and not self.embeds and not self.centred and init != "pissa"
        self.A = self.parameter(rank, *shape[1:])
        self.B = self.parameter(shape[0], rank // self.groups)
        if init == "pissa":
            self.register_buffer("A0", torch.empty_like(self.A.detach()))
            self.register_buffer("B0", torch.empty_like(self.B.detach()))
            self.__dict__["_seen"] = module  # until the values are drawn
        self.complete(place)

    def suits(self, place: Place) -> None:
        """Refuse sites that a kind of this family has no use for."""

    def complete(self, place: Place) -> None:
        """Add what a kind of this family has beside A and B."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """A drawn by `init`, B = 0; with pissa both from the weight."""
        if self.init == "pissa":
            return self._principal(read(self.__dict__.pop("_seen")).weight)
        drawn = torch.empty(self.A.shape, dtype=self.A.dtype)
        fan_in = drawn[0].numel()
        with torch.no_grad():
            if self.init == "gaussian":
                nn.init.normal_(drawn, std=1 / self.rank, generator=generator)
            else:
                bound = math.sqrt((6 if self.init == "he" else 1) / fan_in)
                nn.init.uniform_(drawn, -bound, bound, generator=generator)
            self.A.copy_(drawn)
            self.B.zero_()

    @torch.no_grad()
    def _principal(self, weight: Tensor) -> None:
        rows, r = weight.flatten(1), self.rank // self.groups
        for g, part in enumerate(rows.chunk(self.groups)):
            u, s, vt = torch.linalg.svd(part, full_matrices=False)
            root = (s[:r] / self.scale).sqrt()
            self.A[g * r : (g + 1) * r] = (root[:, None] * vt[:r]).view(r, *self.A.shape[1:]).to(self.A)
            outs = len(part)
            self.B[g * outs : (g + 1) * outs] = (u[:, :r] * root).to(self.B)
        self.A0.copy_(self.A)
        self.B0.copy_(self.B)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        x = given(module, args, kwargs)
        y = out if isinstance(out, Tensor) else main(out)
        if self.dropout and module.training:
            if self.embeds:  # letters cannot be dropped, what they are embedded to can
                return remade(out, y + F.dropout(self.delta(module, x, y.dtype), self.dropout))
            x = F.dropout(x, self.dropout)
        new = self._beside(x, y) if self.plain else y + self.delta(module, x, y.dtype)
        return new if y is out else remade(out, new)

    def _beside(self, x: Tensor, y: Tensor) -> Tensor:
        """`y + s B A x` of a linear map, in one pass over y where the types allow it."""
        a: Tensor = self.A
        b: Tensor = self.B
        if a.dtype != x.dtype:
            a, b = a.to(x.dtype), b.to(x.dtype)
        h = F.linear(x, a)
        if h.dtype != y.dtype:
            return y + F.linear(h * self.scale, b).to(y.dtype)
        rows, thin = y.reshape(-1, y.shape[-1]), h.reshape(-1, h.shape[-1])
        return torch.addmm(rows, thin, b.t(), alpha=self.scale).view(y.shape)

    def delta(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`s B A x` in some type."""
        made = self._product(module, x, self.A, self.B)
        if self.init == "pissa":
            made = made - self._product(module, x, self.A0, self.B0)
        return made if made.dtype == dtype else made.to(dtype)

    def _product(self, module: nn.Module, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self.centred:
            a = a - a.flatten(1).mean(1).view(-1, *(1,) * (a.dim() - 1))
        if not self.embeds and a.dtype != x.dtype:
            a, b = a.to(x.dtype), b.to(x.dtype)
        if a.dim() == 2:
            h = F.embedding(x, a.T, module.padding_idx) if self.embeds else F.linear(x, a)  # type: ignore[arg-type]
            return F.linear(h * self.scale, b)
        h = convolve(module, x, a) * self.scale
        return _pointwise(h, b, self.groups)

    def unfoldable(self, module: nn.Module) -> str | None:
        why = super().unfoldable(module)
        if why is None and hasattr(module, "effective_weight") and not self.centred:
            return "on a standardised convolution it merges only with center: true"
        return why

    def change(self) -> Tensor:
        """`s B A` as the weight it is added to, output channels first, in float64."""
        change = self._change(self.A, self.B)
        return change - self._change(self.A0, self.B0) if self.init == "pissa" else change

    def _change(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.detach().double(), b.detach().double()
        if self.centred:
            a = a - a.flatten(1).mean(1).view(-1, *(1,) * (a.dim() - 1))
        parts = zip(a.flatten(1).chunk(self.groups), b.chunk(self.groups), strict=True)
        return self.scale * torch.cat([down @ up for up, down in parts]).view(len(b), *a.shape[1:])

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        return affine.plus(self.change())

    def learning_rates(self) -> dict[str, float]:
        return {} if self.lr_ratio == 1 else {"B": self.lr_ratio}


@adapter("locon", role="conv.main")
class Locon(Lora):
    """LoRA for convolutions: a thin convolution of the same kernel, then one of width 1.

    Sites: convolutions of any kernel, stride, dilation, padding, groups, and standardised ones.
    Parameters: rank * (in / groups * kernel + out). Changes nothing at the start; merges exactly, into a standardised
    convolution too (centred). Arguments as `lora`, other defaults.
    Source: Yeh et al. 2023 (LyCORIS); Yuan and Linder et al. 2025 (Baskerville), whose up map repeats the stride, which
    this one does not. Use when: what has to change lies in the encoder.
    """

    __init__ = published(Lora.__init__, rank=4, alpha=1.0)

    def suits(self, place: Place) -> None:
        if not (isinstance(place.module, _ConvNd) or hasattr(place.module, "conv_geometry")):
            raise place.refuse("locon", "it is no convolution; lora fits linear maps too")


@adapter("dora", role=("attn.q", "attn.v"))
class Dora(Lora):
    """LoRA on the direction of each output's weights, and their length as a parameter of its own.

    `V = W + s B A`, `W' = m V / |V|`, lengths over all but the output axis, m = |W| at the start; the gradient does not
    go through |V|; an output with |V| = 0 has no direction, and its factor is 1. Sites: as `lora`, embeddings aside.
    Parameters: those of `lora` + out. Merges exactly. With dropout the weight's own part is not dropped. Reads the
    weight at each call, so it must be attached before FSDP shards it, and it measures the module's own weight: behind
    others in a Stack (another DoRA, too) it scales what they gave, less the module's own bias, by that.
    Source: Liu et al. 2024. Use when: LoRA of a low rank falls short of full fine-tuning.
    """

    phase = Phase.DORA
    reads_weight = True

    def suits(self, place: Place) -> None:
        if isinstance(place.module, nn.Embedding):
            raise place.refuse("dora", "it is an embedding; lora fits it")

    def complete(self, place: Place) -> None:
        self.m = self.parameter(len(self.B))
        self.__dict__["_weighed"] = place.module

    def reset_parameters(self, generator: torch.Generator) -> None:
        """As LoRA; m is the length of each output's weights."""
        super().reset_parameters(generator)
        with torch.no_grad():
            self.m.copy_(self._lengths(_weight(self.__dict__.pop("_weighed"))))

    def _lengths(self, weight: Tensor) -> Tensor:
        """|W + s B A| by output, without gradient, and without a matrix of the weight's size."""
        with torch.no_grad():
            rows = weight.detach().flatten(1).to(self.A.dtype)
            total = rows.square().sum(1)
            for a, b, sign in self._factors():
                total = total + (2 * sign) * (b * self._onto(rows, a)).sum(1)
            for a, b, sign in self._factors():
                for other, c, turn in self._factors():
                    total = total + (sign * turn) * self._gram(a, b, other, c)
            return total.clamp(min=0).sqrt()

    def _factors(self) -> list[tuple[Tensor, Tensor, float]]:
        """(A by rank and inputs, s B, sign) of each product, in the weight's own order of groups."""
        pairs = [(self.A, self.B, 1.0)] + ([(self.A0, self.B0, -1.0)] if self.init == "pissa" else [])
        made = []
        for a, b, sign in pairs:
            a = a.flatten(1)
            made.append((a - a.mean(1, keepdim=True) if self.centred else a, b * self.scale, sign))
        return made

    def _onto(self, rows: Tensor, a: Tensor) -> Tensor:
        parts = zip(rows.chunk(self.groups), a.chunk(self.groups), strict=True)
        return torch.cat([r @ part.T for r, part in parts])

    def _gram(self, a: Tensor, b: Tensor, other: Tensor, c: Tensor) -> Tensor:
        chunks = (t.chunk(self.groups) for t in (a, b, other, c))
        return torch.cat([((p @ (x @ y.T)) * q).sum(1) for x, p, y, q in zip(*chunks, strict=True)])

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        gain = _gain(self.m, self._lengths(_weight(module)))
        bias = getattr(module, "bias", None)
        axis = -1 if self.A.dim() == 2 else 1
        x = given(module, args, kwargs)
        if self.dropout and module.training:
            x = F.dropout(x, self.dropout)
        own = y if bias is None else y - along(bias, y, axis)
        new = y + along(gain - 1, y, axis) * own + along(gain, y, axis) * self.delta(module, x, y.dtype)
        return remade(out, new)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        own, change = read(module), self.change()
        gain = _gain(self.m.detach().double(), torch.linalg.vector_norm((own.weight + change).flatten(1), dim=1))
        if affine.bias is None or own.bias is None:
            return affine.plus(change).scaled(gain)
        # The module's own bias is not scaled; what others before it added to that is, as in `after`.
        return Affine(affine.weight, affine.bias - own.bias).plus(change).scaled(gain).plus(bias=own.bias)


def _gain(m: Tensor, lengths: Tensor) -> Tensor:
    """m over the lengths; 1 where a length is 0, which has no direction to give another length to."""
    some = lengths > 0
    return torch.where(some, m / torch.where(some, lengths, torch.ones_like(lengths)), torch.ones_like(m))


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.effective_weight() if hasattr(module, "effective_weight") else module.weight
    return weight


def convolve(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Convolve as a module does, with another kernel and no bias."""
    if not hasattr(module, "conv_geometry"):
        return module._conv_forward(x, weight, None)
    left, right, stride, dilation, groups = module.conv_geometry()
    padding = left if left == right else 0
    if left != right:
        x = F.pad(x, (left, right))
    return F.conv1d(x, weight, None, stride, padding, dilation, groups)


def _pointwise(h: Tensor, b: Tensor, groups: int) -> Tensor:
    shape = (*b.shape, *(1,) * (h.dim() - 2))
    return (F.conv1d, F.conv2d, F.conv3d)[h.dim() - 3](h, b.view(shape), groups=groups)
