from __future__ import annotations

import torch

from agblocks import build


def stack(*stages, head=None, name="stack"):
    """A recipe of an encoder of these stages, and a head; no dropout."""
    return {
        "recipe": 1,
        "name": name,
        "inputs": {"dna": "B 4 L"},
        "nodes": {"encoder": {"block": "encoder.stack", "in": "dna", "args": {"stages": list(stages)}}},
        "heads": {"activity": {"block": "head.scalar", "in": "encoder", "args": {"pool": "mean", **(head or {})}}},
    }


def stem(channels=6, **args):
    return {"block": "conv.stem", "args": {"channels": channels, "kernel": 3, **args}}


def block(**args):
    return {"block": "conv.block", "args": {"kernel": 3, **args}}


THREE = stack(stem(), block(), block(channels=8))

LAYERED = {
    "recipe": 1,
    "name": "layered",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "encoder": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 4, "stages": 2}},
        "tower": {
            "block": "tower.alphagenome",
            "in": "encoder",
            "args": {"depth": 3, "heads": 2, "key_dim": 4, "value_dim": 4, "pair": False},
        },
    },
    "heads": {
        "early": {"block": "head.scalar", "in": "encoder.stage1", "args": {"hidden": [4]}},
        "activity": {"block": "head.scalar", "in": "tower", "args": {"hidden": [4]}},
    },
}


def made(recipe=THREE, seed=0):
    return build(recipe, seed=seed)


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def nodes_of(model, names):
    """The nodes that parameters lie in."""
    return {max((n for n in model.resolved.nodes if name.startswith(f"{n}.")), key=len) for name in names}


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
