"""What the tests of weights share: peers' key listings, and sources made backwards from a model of ours."""

from ast import literal_eval
from pathlib import Path

import torch

from agblocks.weights.formats import bound_to, map_of
from agblocks.weights.match import match
from agblocks.weights.source import Held


def backwards(model, format, seed=0):
    """A state dict as the source would have it: every tensor that the map wants, drawn anew, in the source's shape.

    Returns it, and what each tensor of ours should then be. Written apart from loading: the inverse of each transform
    is worked out here, and parts of one matrix are put together.
    """
    generator = torch.Generator().manual_seed(seed)
    bound = map_of(format).bind([])
    state, expected, parts, first = {}, {}, {}, {}
    for name, value in model.state_dict().items():
        node = next(n for n in model.resolved.nodes if name.startswith(f"{n}."))
        want = bound.wanted(name, node, model.resolved.nodes[node].entry.name)
        if want is None or isinstance(want, str):
            continue
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator) + 0.5
        else:
            drawn = torch.randint(1, 100, value.shape, generator=generator)
        said = want.transform.said
        if said.startswith("rows"):
            parts.setdefault(want.key, []).append((said, drawn))
        elif want.key in state:  # one of theirs is two of ours
            drawn = expected[first[want.key]]
        else:
            state[want.key] = INVERSE[said](drawn)
        first.setdefault(want.key, name)
        expected[name] = drawn
    for key, rows in parts.items():
        state[key] = torch.cat([drawn for _, drawn in sorted(rows, key=lambda row: row[0])])
    return state, expected


INVERSE = {
    "": lambda t: t,
    "c 1 1 -> c": lambda t: t[:, None, None],
    "1 1 h d -> h d": lambda t: t[None, None],
    "1 h 1 d -> h d": lambda t: t[None, :, None],
    "o i 1 1 -> o i": lambda t: t[:, :, None, None],
    "o i -> o i 1": lambda t: t[:, :, 0],
    "o i u -> o u i": lambda t: t.transpose(1, 2).contiguous(),
    "i o -> o i": lambda t: t.T.contiguous(),
    "k i o -> o i k": lambda t: t.permute(2, 1, 0).contiguous(),
}


def listing(name):
    """A peer's full state dict by its listing, without memory."""
    lines = (Path(__file__).parent / "keys" / f"{name}.txt").read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {
        key: torch.empty(literal_eval(shape), dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in rows
    }


def flashzoi():
    """Flashzoi's state dict: Borzoi's with flash-attn's attention in place of the relative one, by its sizes."""
    state = listing("borzoi")
    for key in [key for key in state if ".0.fn.1." in key]:
        del state[key]
    for layer in range(8):
        start = f"transformer.{layer}.0.fn.1.mha"
        state[f"{start}.Wqkv.weight"] = torch.empty(8 * 192 + 2 * 4 * 192, 1536, device="meta")
        state[f"{start}.Wqkv.bias"] = torch.empty(8 * 192 + 2 * 4 * 192, device="meta")
        state[f"{start}.out_proj.weight"] = torch.empty(1536, 1536, device="meta")
        state[f"{start}.out_proj.bias"] = torch.empty(1536, device="meta")
    return state


def matched(model, state, format=None, **options):
    """Names, shapes and types alone: nothing is read."""
    source = Held(state)
    return match(model, source, bound_to(source, format, set(model.state_dict())), **options)[1]
