"""A standard transformer by x-transformers, behind the dozen arguments that matter here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import HookPoint, role

HeadDim = Annotated[
    int, Ge(32), Le(1024), MultipleOf(2)
]  # x-transformers advises against less than 32 with rotary positions
Depth = Annotated[int, Ge(1), Le(128)]
Cap = Annotated[float, Ge(1.0), Le(1000.0)]


@register("tower.transformer", "x: B C L -> out: B C L")
class Transformer(Block):
    """Pre-norm transformer layers by x-transformers, with a norm at the end.

    Shapes: x (batch, channels, length) -> the same. Use when: a tower of the usual kind is to stand in for
    AlphaGenome's; it has no pair map, and a sandwich of norms only if asked for. Any length. Costs: heads * length ** 2
    logits a layer, which `flash` keeps out of memory (not together with `cap`).
    Source: x-transformers, whose own initialisation it keeps.
    (With rotary positions x-transformers cannot run on the meta device; fake tensors can.)
    """

    def __init__(
        self,
        C: int,
        *,
        depth: Depth = 4,
        heads: Positive = 8,
        head_dim: HeadDim = 64,
        one_kv_head: bool = False,
        expand: Positive = 4,
        activation: Literal["gelu", "silu", "relu_squared"] = "gelu",
        gated: bool = False,
        norm: Literal["layer", "rms"] = "layer",
        sandwich: bool = False,
        positions: Literal["rotary", "none"] = "rotary",
        qk_norm: bool = False,
        cap: Cap | None = None,
        dropout: Probability = 0.0,
        flash: bool = True,
    ):
        super().__init__()
        self._settings: dict[str, Any] = {
            "dim": C, "depth": depth, "heads": heads, "attn_dim_head": head_dim, "attn_one_kv_head": one_kv_head,
            "ff_mult": expand, "ff_swish": activation == "silu", "ff_relu_squared": activation == "relu_squared",
            "ff_glu": gated, "use_rmsnorm": norm == "rms", "sandwich_norm": sandwich,
            "rotary_pos_emb": positions == "rotary", "rotary_emb_dim": head_dim,
            "attn_qk_norm": qk_norm, "attn_softclamp_logits": cap is not None,
            "attn_logit_softclamp_value": cap if cap is not None else 50.0,
            "attn_dropout": dropout, "ff_dropout": dropout, "attn_flash": flash and cap is None,
        }  # fmt: skip
        if heads == 1:  # x-transformers would leave the output projection out
            self._settings["attn_project_out"] = True
        self.layers = self._made()
        self.end = role(HookPoint(), "block.out", width=C)

    def _made(self) -> nn.Module:
        from x_transformers.x_transformers import Attention, Encoder, FeedForward

        layers = Encoder(**self._settings)
        for module in layers.modules():
            if isinstance(module, Attention):
                role(module, "block.attn", width=self._settings["dim"])
                for name in ("q", "k", "v", "out"):
                    role(getattr(module, f"to_{name}"), f"attn.{name}")
            elif isinstance(module, FeedForward):
                role(module, "block.mlp", width=self._settings["dim"])
                linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
                role(linear[0], "mlp.up")
                role(linear[-1], "mlp.down")
        return layers

    def reset_parameters(self) -> None:
        """Draw the layers anew, by making them once more: x-transformers has no call for it."""
        with torch.no_grad(), torch.device("cpu"):
            fresh = self._made()
            drawn = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
            for name, tensor in (*self.layers.named_parameters(), *self.layers.named_buffers()):
                tensor.copy_(drawn[name])

    def _apply(self, fn: Any, recurse: bool = True) -> Transformer:
        """Move with the model, but keep rotary frequencies in float32: in bfloat16 positions blur from 256 on."""
        before = {name: buffer for name, buffer in self.named_buffers() if name.endswith("inv_freq")}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = self.get_buffer(name)
            if now.dtype in (torch.float16, torch.bfloat16):
                owner = self.get_submodule(name.rpartition(".")[0])
                owner.inv_freq = buffer.to(device=now.device, dtype=torch.float32)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.layers(x.transpose(1, 2))).transpose(1, 2)
