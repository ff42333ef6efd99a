"""The AlphaGenome encoder at full size: kept kernels and fused training against working kernels out at every call.

The other side is the same model with the formula written out, pass by pass, at each call, as published ports do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agblocks import build
from agblocks.layers import StandardizedConv1d

from .timing import pair


class Naive:
    """While entered, standardised convolutions work their kernel out at every call, in separate passes."""

    def __enter__(self) -> None:
        self.kept = StandardizedConv1d._kernel
        StandardizedConv1d._kernel = lambda module, positions: plain(module.weight, module.scale)

    def __exit__(self, *_: object) -> None:
        StandardizedConv1d._kernel = self.kept


def plain(weight: Tensor, scale: Tensor) -> Tensor:
    fan_in = weight[0].numel()
    centred = weight - weight.mean((1, 2), keepdim=True)
    variance = weight.var((1, 2), unbiased=False, keepdim=True)
    return centred * scale[:, None, None] * torch.rsqrt(torch.clamp(fan_in * variance, min=1e-4))


def main(repeats: int = 8) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = encoder()
    for batch in (1, 32):
        dna = torch.eye(4)[torch.randint(4, (batch, 256))].mT
        model.eval()

        def ours(dna: Tensor = dna) -> Tensor:
            with torch.inference_mode():
                return model(dna=dna)["encoder"]

        def naive() -> Tensor:
            with Naive():
                return ours()

        torch.testing.assert_close(ours(), naive(), atol=1e-4, rtol=1e-4)
        mine, theirs, ratio = pair(ours, naive, repeats, warm_up=2)
        print(f"evaluation, {batch} x 256 bp: ours {mine}, each call {theirs}, ours / other {ratio}", flush=True)
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(dna=dna)["encoder"].square().mean().backward()

    def naive_step() -> None:
        with Naive():
            step()

    mine, theirs, ratio = pair(step, naive_step, max(3, repeats // 2), warm_up=1)
    print(f"train step, {batch} x 256 bp: ours {mine}, each call {theirs}, ours / other {ratio}")


def encoder() -> torch.nn.Module:
    """The encoder alone, every weight its own draw."""
    recipe = {
        "recipe": 1,
        "inputs": {"dna": "B 4 L"},
        "nodes": {"encoder": {"block": "encoder.alphagenome", "in": "dna"}},
        "keep": ["encoder"],
    }
    return build(recipe, seed=0)


if __name__ == "__main__":
    main()
