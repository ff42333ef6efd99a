"""Training on features of a frozen part is the same training, and where it would not be, it says why."""

import copy
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from features_helpers import NET, net, table_and_splits

import agblocks
from agblocks.adapters import adapt
from agblocks.data import encode, one_hot_codes
from agblocks.data.sequence import reverse_complement
from agblocks.studies.features import Store, Variants, frozen_edges, usable
from agblocks.studies.features.key import row_keys
from agblocks.studies.features.training import OnFeatures, behind, part_of
from agblocks.training import Settings, fit, load_run

FROZEN = Settings(epochs=3, batch_size=16, lr=1e-2, patience=0, tune="head", device="cpu", seed=3)


def runs(tmp_path, settings, recipe=NET, store=None, **more):
    """The same training plainly and on features, and what the second one said."""
    table, splits = table_and_splits()
    said = []
    store = store or Store(tmp_path / "features")
    kept = partial(OnFeatures, store=store, told=said.append, **more)
    plain = fit(recipe, table, splits, tmp_path / "plain", settings)
    cached = fit(recipe, table, splits, tmp_path / "cached", settings, work=kept)
    return plain, cached, said


def assert_same(one, two, atol=0.0):
    for first, second in zip(one.models, two.models, strict=True):
        states = first.state_dict(), second.state_dict()
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            torch.testing.assert_close(
                states[0][name], states[1][name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert one.digest == two.digest and one.wiring == two.wiring and one.settings == two.settings


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tune": "head+deep", "ema": 0.9, "schedule": "onecycle", "keep": "last"},
        {"tune": "not:to:down", "layer_decay": 0.5, "head_lr": 3.0},
        {"strands": "both", "reverse_complement": 0.5},
        {"tune": "head", "unfreeze": "2=deep", "ensemble": 2},
        {"tune": "from:deep", "clip": 0.1},
    ],
    ids=["head", "one stage", "not, layer decay", "strands", "later, ensemble", "from"],
)
def test_the_same_weights_as_without_features(tmp_path, more):
    """The same rows in the same batches with the same dropout; but features come from batches of another size, for which
    processors add in another order: the last bits of float32 differ."""
    settings = replace(FROZEN, **more)
    plain, cached, said = runs(tmp_path, settings)
    assert any(line.startswith("cut at ") for line in said), said
    assert_same(plain, cached, atol=2e-6)
    ours, theirs = ((tmp_path / kind / "predictions.tsv").read_text() for kind in ("cached", "plain"))
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    scores = [run.metrics["test"][0]["pearson"] for run in (plain, cached)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


class Live:
    """A store that has everything, computed when it is asked for, in the batch that asks."""

    def __init__(self, table):
        texts = [text for row in table.sequences for text in (row, reverse_complement(row))]
        codes = encode(texts)
        turned = np.arange(len(texts)) % 2 == 1
        self.codes = dict(zip(row_keys(codes, turned), codes, strict=True))
        self.model = self.edge = None

    def missing(self, space, keys):
        return []

    def room(self, needed):
        assert needed == 0

    def get(self, space, keys):
        self.model.eval()
        with torch.inference_mode():
            dna = one_hot_codes(np.stack([self.codes[key] for key in keys]))
            made = self.model(dna=dna, outputs=[self.edge])[self.edge]
        self.model.train()
        return made.clone()


@pytest.mark.parametrize("more", [{}, {"strands": "both", "reverse_complement": 0.5}], ids=["head", "strands"])
def test_to_the_last_bit_where_features_come_from_batches_of_the_same_size(tmp_path, more):
    table, splits = table_and_splits()
    live = Live(table)

    class Watched(OnFeatures):
        def _train(self, model, part, *rest):
            live.model, (live.edge,) = copy.deepcopy(model), part.cut.edges
            return super()._train(model, part, *rest)

    settings = replace(FROZEN, **more)
    plain = fit(NET, table, splits, tmp_path / "plain", settings)
    cached = fit(NET, table, splits, tmp_path / "cached", settings, work=partial(Watched, store=live))
    assert live.model is not None
    assert_same(plain, cached, atol=0)


def test_the_frozen_part_runs_once_a_sequence(tmp_path, monkeypatch):
    table, splits = table_and_splits()
    rows, stem = [], agblocks.graph.registry.lookup("conv.stem").target
    forward = stem.forward

    def counted(self, x):
        rows.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(stem, "forward", counted)
    store = Store(tmp_path / "features")
    kept = partial(OnFeatures, store=store)
    fit(NET, table, splits, tmp_path / "one", FROZEN, work=kept)
    assert sum(rows) == len(table)
    rows.clear()
    fit(NET, table, splits, tmp_path / "two", replace(FROZEN, lr=1e-3, epochs=9), work=kept)
    assert not rows, "another rate, the same encoder: it never runs"


def test_the_run_is_one_of_the_whole_model(tmp_path):
    table, splits = table_and_splits()
    run = fit(NET, table, splits, tmp_path / "run", FROZEN, work=partial(OnFeatures, store=Store(tmp_path / "f")))
    again = load_run(tmp_path / "run")
    assert set(again.resolved.nodes) == {"stem", "down", "deep", "activity"} and list(again.resolved.inputs) == ["dna"]
    assert run.data["parameters"]["trained"] < run.data["parameters"]["all"]


def test_an_interrupted_training_goes_on(tmp_path):
    table, splits = table_and_splits()
    kept = partial(OnFeatures, store=Store(tmp_path / "features"))
    whole = fit(NET, table, splits, tmp_path / "whole", FROZEN, work=kept)

    class Stop(Exception):
        pass

    from agblocks.training.keeper import Keeper

    save, calls = Keeper.on_train_epoch_end, []

    def stopping(self, trainer, module):
        save(self, trainer, module)
        calls.append(1)
        if len(calls) == 2:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Keeper, "on_train_epoch_end", stopping)
        fit(NET, table, splits, tmp_path / "part", FROZEN, work=kept)
    resumed = fit(NET, table, splits, tmp_path / "part", FROZEN, work=kept, resume=True)
    assert_same(whole, resumed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": "full"}, "nothing that comes first is frozen: stem.* trains"),
        ({"tune": "stem+head"}, "nothing that comes first is frozen: stem.* trains"),
        ({"unfreeze": "2=full"}, "nothing that comes first is frozen: stem.* trains, later"),
        ({"shift": 2}, "training shifts sequences by up to 2 bases either way, and the cached shifts are 0"),
    ],
)
def test_where_features_would_be_wrong_everything_runs(tmp_path, settings, message):
    plain, cached, said = runs(tmp_path, replace(FROZEN, **settings))
    assert len(said) == 1 and said[0].startswith("features are not kept: ")
    assert re.search(message, said[0])
    assert_same(plain, cached)
    assert not (tmp_path / "features").exists()


def reason(model, variants=None, **more):
    return usable(model, replace(FROZEN, **more), variants)


def test_reasons():
    model = net()
    assert reason(model) is None
    assert frozen_edges(model, FROZEN) == ("deep",)
    assert "the other strand too, and it is not among" in reason(model, reverse_complement=0.5)
    assert reason(model, Variants(both_strands=True), reverse_complement=0.5) is None
    assert "validation shows both strands" in reason(model, strands="both")
    shifts = Variants(shifts=range(-2, 3), fill="n")
    assert reason(model, shifts, shift=2) is None
    assert "fill 'roll', and the cached shifts have 'n'" in reason(model, shifts, shift=2, shift_mode="roll")
    assert "by up to 3 bases" in reason(model, shifts, shift=3)
    assert reason(model, shifts, shift=3, shift_probability=0.0) is None
    assert "moves and turns the insert" in reason(model, shifts, shift=2, shift_scope="insert")
    assert "in place are not among" in reason(model, Variants(shifts=(1,)))
    assert "adapters are attached" in reason(adapt(net(), "lora:role=conv.main,rank=2"))
    assert "is no model of a recipe" in usable(torch.nn.Linear(1, 1), FROZEN)
    assert "2 processes train together" in reason(model, devices=2, strategy="ddp")


def test_what_draws_in_training_is_behind_the_cut():
    nodes = copy.deepcopy(NET["nodes"])
    nodes["thin"] = {"block": "drop.elements", "in": "down", "args": {"probability": 0.1}}
    nodes["deep"]["in"] = "thin"
    model = net(nodes=nodes)
    assert frozen_edges(model, FROZEN) == ("down",)
    nodes["thin"]["in"], nodes["stem"]["in"] = "dna", "thin"
    nodes["deep"]["in"] = "down"
    early = net(nodes=nodes)
    assert "thin.dropout drops 0.1 of its input, drawn anew in each step" in usable(early, FROZEN)


@pytest.mark.parametrize("name", ["enformer_small", "borzoi_small", "dream_rnn_small"])
def test_towers_with_dropout_are_behind_the_cut(name):
    """Their published dropout draws in frozen towers too."""
    model = agblocks.build(name, seed=0)
    (first, *_) = frozen_edges(model, FROZEN) or ("",)
    drops = [
        node
        for node in model.resolved.nodes
        for module in model.get_submodule(node).modules()
        if isinstance(module, torch.nn.Dropout) and module.p > 0
    ]
    assert drops, "no dropout in this recipe"
    above = {n.name for n in model.resolved.needed(frozen_edges(model, FROZEN))}
    assert not above.intersection(drops)
    assert first or usable(model, FROZEN) is not None


def test_norms_that_move_are_behind_the_cut():
    model = net()
    for module in model.stem.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.affine = False
            module.weight = module.bias = None
    assert usable(model, FROZEN) is None, "it goes by the part around it, which is frozen"
    model.stem.requires_grad_(True)
    assert "trains" in usable(model, replace(FROZEN, tune="head+stem"))


def test_what_was_redrawn_and_is_frozen_has_features_of_its_own(tmp_path):
    table, splits = table_and_splits()
    store = Store(tmp_path / "features")
    for seed in (0, 1):
        fit(NET, table, splits, tmp_path / f"{seed}", replace(FROZEN, seed=seed, epochs=1), work=partial(
            OnFeatures, store=store))  # fmt: skip
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_the_part_behind_is_made_of_the_models_own_modules():
    model = net()
    part, why = behind(model, replace(FROZEN, tune="head+deep"))
    assert why is None and part is not None
    assert part.suffix.deep is model.deep and part.suffix.activity is model.activity
    assert list(part.suffix.resolved.inputs) == ["down"] and part.cut.edges == ("down",)
    assert all(not parameter.is_meta for parameter in part.suffix.parameters())
    flags = [p.requires_grad for p in model.parameters()]
    assert all(flags), "flags are as they were"
    with pytest.raises(AttributeError):
        part_of(net(nodes={**NET["nodes"]}), agblocks.resolve("tiny"))


def test_rates_that_speak_of_the_frozen_part(tmp_path):
    model = net()
    _, why = behind(model, replace(FROZEN, rates="stem=0.1"))
    assert why is None or "speak of what lies before the cut" in why


def test_modes_and_flags_are_given_back():
    model = net()
    model.train()
    model.down.eval()
    modes = [m.training for m in model.modules()]
    usable(model, FROZEN)
    frozen_edges(model, FROZEN)
    assert [m.training for m in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_with_a_strand_flag_and_constants(tmp_path):
    """Of the whole's inputs the part behind the cut gets what it reads."""
    recipe = {
        **NET,
        "inputs": {"dna": "B 4 L", "organism": "B"},
        "nodes": {**NET["nodes"], "trunk": {"block": "embed.organism", "in": {"x": "down", "organism": "organism"}}},
    }
    recipe["nodes"]["deep"] = {**recipe["nodes"]["deep"], "in": "trunk"}
    table, splits = table_and_splits()
    made = {}
    for kind, work in (("plain", None), ("cached", partial(OnFeatures, store=Store(tmp_path / "f")))):
        made[kind] = fit(recipe, table, splits, tmp_path / kind, replace(FROZEN, tune="from:trunk"), work=work,
                         inputs={"organism": 1})  # fmt: skip
    assert_same(made["plain"], made["cached"], atol=2e-6)


def test_scores_without_validation_rows(tmp_path):
    table, splits = table_and_splits()
    bare = replace(splits, valid=np.array([], dtype=np.int64))
    store = Store(tmp_path / "features")
    run = fit(NET, table, bare, tmp_path / "run", replace(FROZEN, keep="last"), work=partial(OnFeatures, store=store))
    assert run.metrics["test"]
