"""Attention of many query heads over one key and value head, a block of logits at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

HELD = {"cpu": 2**20}  # logits held at once: what a processor's caches hold
HELD_ELSEWHERE = 2**27  # on an accelerator large blocks keep it busy
LARGEST_EXPONENT = 30.0  # a cap up to which no maximum needs to be taken off


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, repeat: int = 1, cap: float | None = None
) -> Tensor:
    """Attention of many query heads over one key and value head.

    q (batch, queries, heads, d), k (batch, keys, d), v (batch, keys, e) -> (batch, queries, heads, e).
    `bias` (batch, heads, queries / repeat, keys / repeat) holds one number for each block of repeat x repeat logits and
    is added without being repeated in memory. Then logits are capped, `cap * tanh(logits / cap)`: the bias is capped
    too. Logits and softmax are float32 or better. Keys in front of the biased ones (a prefix) get no bias. Queries are
    independent of each other, so a caller may go through them, and through the rows of the bias, in slices.

    Costs: the logits are never held whole, but a block of queries at a time, in the backward pass too, which works them
    out again: memory grows with queries + keys, not with their product. Where `torch.compile` or `torch.export` traces,
    the formula is written out for it; compiled for a GPU it is flex attention. Under `torch.func`'s transforms and in
    forward mode it is worked out at once.
    """
    if torch.compiler.is_compiling():
        return (flex if q.is_cuda else plain)(q, k, v, bias, repeat=repeat, cap=cap)
    if _transformed(q, k, v, bias):
        return plain(q, k, v, bias, repeat=repeat, cap=cap)
    return _Attend.apply(q, k, v, bias, repeat, cap)[0]


def plain(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, repeat: int = 1, cap: float | None = None
) -> Tensor:
    """The formula of `attend` at once, in operations that differentiate any number of times."""
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = (q.to(wide).transpose(1, 2) * (1 / math.sqrt(q.shape[-1]))) @ k.to(wide).transpose(1, 2)[:, None]
    if bias is not None:
        before = logits.shape[-1] - bias.shape[-1] * repeat
        spread = bias.to(wide).repeat_interleave(repeat, -1).repeat_interleave(repeat, -2)
        logits = logits + torch.nn.functional.pad(spread, (before, 0))
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return (logits.softmax(-1).to(v.dtype) @ v[:, None]).transpose(1, 2)


def flex(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, repeat: int = 1, cap: float | None = None
) -> Tensor:
    """The formula of `attend` as torch's flex attention, which a compiler fuses for a GPU."""
    from torch.nn.attention.flex_attention import flex_attention

    before = k.shape[1] - (0 if bias is None else bias.shape[-1] * repeat)

    def score(logit: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if bias is not None:
            found = bias[b, h, i // repeat, (j - before).clamp(min=0) // repeat]
            logit = logit + torch.where(j < before, 0.0, found)
        return logit if cap is None else torch.tanh(logit / cap) * cap

    out = flex_attention(q.transpose(1, 2), k[:, None], v[:, None], score_mod=score, enable_gqa=True)
    assert isinstance(out, Tensor)
    return out.transpose(1, 2)


def _transformed(*tensors: Tensor | None) -> bool:
    """Whether a transform of torch.func is at work, or forward differentiation: both want plain operations."""
    duals = (forward_ad.unpack_dual(t) for t in tensors if t is not None)
    return _batching() or any(dual.tangent is not None for dual in duals)


def _batching() -> bool:
    """Whether torch.func is at work, or the older vmap of `is_grads_batched`. Torch has no public question for it."""
    older = torch._C._dispatch_key_parse("VmapMode")
    return torch._C._are_functorch_transforms_active() or torch._C._dispatch_tls_is_dispatch_key_included(older)


class _Attend(torch.autograd.Function):
    """`attend` block by block. Kept for the backward pass: inputs, outputs, and each query's log of summed weights."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, repeat: int, cap: float | None
    ) -> tuple[Tensor, Tensor]:
        work = _Blocks(q, k, v, bias, repeat, cap)
        y = v.new_empty((*q.shape[:3], v.shape[-1]))
        logs = work.k.new_empty((q.shape[0], q.shape[2], q.shape[1]))  # batch heads queries
        with work.exactly():
            for examples, queries in work.blocks():
                logits = work.bent(examples, queries).mul_(work.outer)  # examples, heads * queries, keys
                largest = None if work.gated else logits.amax(-1, keepdim=True)
                weights = (logits if largest is None else logits.sub_(largest)).exp_()
                total = weights.sum(-1, keepdim=True)
                if weights.dtype == v.dtype:
                    mixed = torch.bmm(weights, v[examples]).div_(total)
                else:
                    mixed = torch.bmm(weights.div_(total).to(v.dtype), v[examples])
                log = total.log_() if largest is None else total.log_().add_(largest)
                y[examples, queries] = work.apart(mixed).transpose(1, 2)
                logs[examples, :, queries] = work.apart(log)[..., 0]
        return y, logs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, bias, ctx.repeat, ctx.cap = inputs
        y, logs = output
        ctx.mark_non_differentiable(logs)
        ctx.save_for_backward(q, k, v, bias, y, logs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, y, logs = ctx.saved_tensors
        further = torch.is_grad_enabled()  # someone wants to differentiate this gradient
        if further or _batching():  # or many at once
            inputs = [t for t, wanted in zip((q, k, v, bias), ctx.needs_input_grad, strict=False) if wanted]
            with torch.enable_grad():
                again = plain(q, k, v, bias, repeat=ctx.repeat, cap=ctx.cap)
            found = iter(torch.autograd.grad(again, inputs, grad, create_graph=further))
            return (*(next(found) if wanted else None for wanted in ctx.needs_input_grad[:4]), None, None)
        return (*_backward(_Blocks(q, k, v, bias, ctx.repeat, ctx.cap), y, logs, grad), None, None)


def _backward(work: _Blocks, y: Tensor, logs: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of queries, keys, values and bias, the weights worked out again block by block."""
    wide = work.k.dtype
    q, v = work.q, work.v.to(wide)
    grad_q, grad_k, grad_v = q.new_empty(q.shape), torch.zeros_like(work.k), torch.zeros_like(v)
    grad_bias = None if work.bias is None else torch.empty_like(work.bias)
    with work.exactly():
        for examples, queries in work.blocks():
            bent = work.bent(examples, queries)
            log = logs[examples, :, queries].reshape(len(bent), -1, 1)
            weights = torch.add(log.neg(), bent, alpha=work.outer).exp_()
            above = work.together(grad[examples, queries])
            grad_v[examples].baddbmm_(weights.transpose(1, 2), above)
            along = (above * work.together(y[examples, queries])).sum(-1, keepdim=True)
            below = torch.bmm(above, v[examples].transpose(1, 2)).sub_(along).mul_(weights)
            if work.gated:
                below.mul_(bent.addcmul_(bent, bent, value=-1)).mul_(4)  # 1 - tanh ** 2 is 4 s (1 - s)
            elif work.capped:
                below.addcmul_(below, bent.square_(), value=-1)
            if grad_bias is not None:
                by_row = work.apart(below)[..., work.before :].unflatten(2, (-1, work.repeat)).sum(3)
                grad_bias[examples, :, work.rows(queries)] = by_row.unflatten(-1, (-1, work.repeat)).sum(-1)
            mine = torch.bmm(below, work.k[examples]).mul_(work.scale)
            grad_q[examples, queries] = work.apart(mine).transpose(1, 2)
            grad_k[examples].baddbmm_(below.transpose(1, 2), work.together(q[examples, queries]), alpha=work.scale)
    return grad_q, grad_k.to(q.dtype), grad_v.to(work.v.dtype), grad_bias


class _Blocks:
    """What one call of `attend` works through: which blocks, and the logits of each."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, repeat: int, cap: float | None):
        self.q, self.v, self.bias, self.repeat = q, v, bias, repeat
        self.k = k.to(torch.promote_types(q.dtype, torch.float32))
        self.heads = q.shape[2]
        self.scale = 1 / math.sqrt(q.shape[-1])
        # A cap is taken by a sigmoid, tanh(u) = 2 sigmoid(2 u) - 1, which is many times quicker; the constant cancels
        # in the softmax. Wide caps, where float32 would show the rounding near a half, by the tangent itself.
        self.capped = cap is not None
        self.gated = cap is not None and cap <= LARGEST_EXPONENT
        self.outer = 1.0 if cap is None else 2 * cap if self.gated else cap
        self.inner = 1.0 if cap is None else 2 / cap if self.gated else 1 / cap
        self.before = k.shape[1] - (0 if bias is None else bias.shape[-1] * repeat)

    def exactly(self) -> AbstractContextManager[object]:
        """Autocast would take the logits back to half precision. (The meta device has none.)"""
        device = self.q.device.type
        return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of examples and queries: several short examples at once, or one long one in parts."""
        batch, queries, heads, _ = self.q.shape
        held = HELD.get(self.q.device.type, HELD_ELSEWHERE) // (heads * self.k.shape[1])
        examples = max(1, held // queries)
        step = self.repeat if self.bias is not None else 1
        rows = queries if held >= queries else max(step, held // step * step)
        for first in range(0, batch, examples):
            for start in range(0, queries, rows):
                yield slice(first, min(batch, first + examples)), slice(start, min(queries, start + rows))

    def rows(self, queries: slice) -> slice:
        """The rows of the bias for some queries."""
        return slice(queries.start // self.repeat, queries.stop // self.repeat)

    def bent(self, examples: slice, queries: slice) -> Tensor:
        """(examples, heads * queries, keys): logits; or what gives them, but for a constant, multiplied by `outer`."""
        q = self.together(self.q[examples, queries]).mul_(self.scale * self.inner)
        logits = torch.bmm(q, self.k[examples].transpose(1, 2))
        if self.bias is not None:
            part = self.bias[examples, :, self.rows(queries)].to(logits.dtype).mul(self.inner)
            part = part.repeat_interleave(self.repeat, -1)[:, :, :, None]
            self.apart(logits)[..., self.before :].unflatten(2, (-1, self.repeat)).add_(part)
        return logits.sigmoid_() if self.gated else logits.tanh_() if self.capped else logits

    def together(self, x: Tensor) -> Tensor:
        """(examples, queries, heads, n) to a copy (examples, heads * queries, n) of the logits' precision."""
        return x.transpose(1, 2).to(self.k.dtype, copy=True, memory_format=torch.contiguous_format).flatten(1, 2)

    def apart(self, x: Tensor) -> Tensor:
        """(examples, heads * queries, n) as (examples, heads, queries, n)."""
        return x.unflatten(1, (self.heads, -1))
