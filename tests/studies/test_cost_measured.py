from __future__ import annotations

import json

import pytest
import torch

import agblocks
from agblocks.errors import InputError
from agblocks.graph.cost import cost
from agblocks.graph.resolve import resolve
from agblocks.studies.cost import measure as costs
from agblocks.studies.cost.measure import measure
from agblocks.studies.cost.process import CostError, peak_of

QUICK = {"seconds": 0.01, "memory": False}


@pytest.fixture(scope="module")
def model():
    return agblocks.build("mpra_small", keep=["encoder.*"], seed=0)


def test_what_is_counted_is_that_of_the_graph(model):
    found = measure(model, lengths=200, **QUICK)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["bases"] == 200 and found["lengths"] == {"L": 200}
    assert found["macs_per_base"] == cost(model.resolved, {"L": 200}).total / 200
    assert json.loads(json.dumps(found)) == found


def test_a_tap_costs_what_comes_before_it(model):
    found = measure(model, ["encoder.stage2"], **QUICK)
    before = [model.get_submodule(f"encoder.stage{i}") for i in (1, 2)]
    assert found["parameters"] == sum(p.numel() for m in before for p in m.parameters())
    nodes = cost(model.resolved).nodes
    assert found["macs_per_base"] == (nodes["encoder.stage1"] + nodes["encoder.stage2"]) / 256
    assert found["outputs"] == ["encoder.stage2"]


def test_outputs_that_no_head_reads_are_counted_too():
    kept = resolve("mpra_small", "activity.in=encoder.stage1", keep=["encoder.stage3"])
    only, beyond = cost(kept), cost(kept, outputs=["encoder.stage3"])
    assert only.nodes["encoder.stage3"] == 0 < beyond.nodes["encoder.stage3"]
    assert beyond.nodes["activity"] == 0 < only.nodes["activity"]


def test_adapters_are_counted(model):
    rank = 1
    plain = measure(model, **QUICK)
    adapted = agblocks.adapt(agblocks.build("mpra_small"), [f"lora:glob=activity.layers.0,rank={rank}"])
    found = measure(adapted, **QUICK)
    layer = adapted.base.get_submodule("activity.layers.0")
    more = rank * (layer.in_features + layer.out_features)
    assert found["parameters"] - plain["parameters"] == more
    assert (found["macs_per_base"] - plain["macs_per_base"]) * 256 == pytest.approx(more)


def test_latency_is_the_median_of_turns_for_one_sequence(model, monkeypatch):
    """With a clock of our own: a batch of 32 takes 64 ms, of 1 as many ms as its turn."""
    spent, batches = iter(range(1, 1000)), []

    def timed(work, device):
        batches.append(0)
        seen = {}
        handle = model.register_forward_pre_hook(lambda m, a, k: seen.update(rows=len(k["dna"])), with_kwargs=True)
        work()
        handle.remove()
        batches[-1] = seen["rows"]
        return 0.064 if seen["rows"] == 32 else next(spent) / 1000

    monkeypatch.setattr(costs, "_timed", timed)
    found = measure(model, seconds=0.0, memory=False)
    assert found["rounds"] == 5 and found["latency_32_ms"] == 2
    assert found["latency_1_ms"] == 5  # turns 3 to 7, after two to warm up
    assert found["quartiles"] == {"latency_1_ms": [4, 6], "latency_32_ms": [2, 2]}
    assert sorted(batches[4:6]) == sorted(batches[6:8]) == [1, 32] and batches[4:6] == batches[6:8][::-1]
    assert found["threads"] == 1


def test_the_model_is_left_as_it_was(model):
    model.train()
    model.get_submodule("encoder.stage1").requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    before, threads = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_num_threads()
    measure(model, **QUICK)
    assert all(m.training for m in model.modules()) and torch.get_num_threads() == threads
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval().requires_grad_(True)


def test_what_cannot_be_measured_is_noted(model, monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(costs, "_latencies", broken)
    monkeypatch.setattr(costs, "_peak_apart", broken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = measure(model, device="cuda")
    assert found["device"] == "cpu" and found["latency_1_ms"] is None is found["peak_mb"]
    assert found["notes"] == [
        "device: there is no GPU, measured on the CPU",
        "latency: not measured: no memory",
        "memory: not measured: no memory",
    ]
    with pytest.raises(InputError, match="stage77"):
        measure(model, ["encoder.stage77"])


def test_memory_is_weights_and_what_a_pass_holds():
    """A model of one wide layer: its weights, and its one large track, are what there is."""
    recipe = {
        "recipe": 1, "name": "wide", "inputs": {"dna": "B 4 L"},
        "nodes": {"wide": {"block": "conv.embed", "in": "dna", "args": {"channels": 512}}},
        "heads": {"activity": {"block": "head.scalar", "in": "wide"}},
    }  # fmt: skip
    narrow = measure(recipe, lengths=256, seconds=0.0)
    assert not narrow["notes"]
    weights = narrow["parameters"] * 4 / 2**20
    track = 32 * 512 * 256 * 4 / 2**20
    assert weights + track < narrow["peak_mb"] < weights + 8 * track


class Unsendable(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.held = lambda: None


def test_a_process_that_fails_says_why(model):
    shapes = {"dna": ((1, 4, 64), torch.float32)}
    with pytest.raises(CostError, match="cannot be sent to a process of its own"):
        peak_of(Unsendable(), shapes, shapes, ["activity"])
    bare = agblocks.build("mpra_small", device="meta")
    with pytest.raises(CostError, match="process of its own failed: .*no input 'rna'"):
        peak_of(bare, shapes, {**shapes, "rna": shapes["dna"]}, ["activity"])
