"""A graph model's forward against the same modules called by hand: at most 1.03 times, small model, batch 1."""

from __future__ import annotations

import torch

from agblocks import build

from .timing import pair


def main(repeats: int = 60) -> None:
    torch.set_num_threads(1)
    model = build("tiny").eval()
    dna = torch.eye(4)[torch.randint(4, (1, 256))].transpose(1, 2)
    (head,) = model.resolved.heads
    nodes = [
        (model.get_submodule(n.name), [n.inputs.get(p.name) for p in n.entry.signature.inputs], n.outputs[0])
        for n in model.resolved.needed([head])
    ]
    assert all(len(reads) == 1 for _, reads, _ in nodes), "by hand means a chain here"
    modules = [module for module, _, _ in nodes]

    def by_hand() -> dict[str, torch.Tensor]:
        x = dna
        for module in modules:
            x = module(x)
        return {head: x}

    with torch.inference_mode():
        assert torch.equal(model(dna=dna)[head], by_hand()[head])
        ours, other, ratio = pair(lambda: model(dna=dna), by_hand, repeats, batch=20)
    print(f"tiny, 1 x 256 bp, {len(modules)} nodes: graph {ours}, by hand {other}, ratio {ratio}")


if __name__ == "__main__":
    main()
