"""Random policies over several recipes: what trains at every epoch, against a reading of the terms written apart."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tune_helpers import LAYERED, block, changed, made, stack, state, stem

from agblocks import build
from agblocks.training import RunError, Settings, Transfer, Tune, Unfreeze
from agblocks.training.tuning.frozen import freeze
from agblocks.training.tuning.rates import as_rates

NORMS = stack(stem(norm="batch"), block(channels=6, norm="rms_batch"), block(norm="rms_batch", statistics="ema"))
MODELS = {
    "layered": made(LAYERED),
    "norms": made(NORMS),
    "alphagenome_small": build("alphagenome_small", device="meta"),
    "borzoi_small": build("borzoi_small", device="meta"),
    "mpra_small": build("mpra_small", device="meta"),
}


class Reading:
    """What terms name, by names alone: nodes as prefixes, edges by who makes what, patterns as regular expressions."""

    def __init__(self, model):
        self.model, nodes = model, model.resolved.nodes
        self.names = [n for n, _ in model.named_parameters()]
        self.heads = set(model.resolved.heads)
        makers = {edge: node for node in nodes for edge in nodes[node].outputs}
        self.reads = {node: {makers[e] for e in nodes[node].inputs.values() if e in makers} for node in nodes}

    def of(self, nodes):
        return {n for n in self.names if any(n.startswith(f"{node}.") for node in nodes)}

    def closure(self, name, step):
        found = {node for node in self.reads if f"{node}.".startswith(f"{name}.")}
        while more := {other for node in found for other in step(node)} - found:
            found |= more
        return found

    def term(self, term, heads):
        if term.startswith("not:"):
            return set(self.names) - self.term(term[4:], False)
        kind, _, name = term.partition(":")
        if term == "full":
            return set(self.names)
        if term == "head":
            return self.of(self.heads)
        extra = self.of(self.heads) if heads else set()
        if kind == "from":
            return self.of(self.closure(name, lambda node: {n for n, r in self.reads.items() if node in r})) | extra
        if kind == "to":
            return self.of(self.closure(name, self.reads.get))
        if kind == "last":
            places = sorted({int(m[1]) for n in self.names if (m := re.match(r"tower\.layer(\d+)\.", n))})
            word = r"tower\.layer"
            if not places:
                places = sorted({int(m[1]) for n in self.reads if (m := re.match(r"encoder\.stage(\d+)", n))})
                word = r"encoder\.stage"
            kept = places[-int(name) :]
            return {n for n in self.names if (m := re.match(rf"{word}(\d+)\.", n)) and int(m[1]) in kept} | extra
        inner = ""
        for part in term.split("."):
            one = "".join({"*": r"[^.]*"}.get(c, c) for c in part)
            inner += r"(?:[^.]+\.)*" if part == "**" else rf"{one}\."
        return {n for n in self.names if re.match(inner, f"{n}.")}

    def terms(self, terms, heads=True):
        positive = [t for t in terms if not t.startswith("not:")]
        found = set().union(*(self.term(t, heads) for t in positive)) if positive else set(self.names)
        for term in terms:
            if term.startswith("not:"):
                found -= self.term(term[4:], False)
        return found


READINGS = {name: Reading(model) for name, model in MODELS.items()}


@st.composite
def some_terms(draw, name):
    reading = READINGS[name]
    stages = sorted({m[0] for n in reading.reads if (m := re.match(r"encoder\.stage\d+|tower\.layer\d+", n))})
    one = st.one_of(
        st.just("head"),
        st.just("last:1"),
        st.sampled_from(stages),
        st.sampled_from(stages).map("from:{}".format),
        st.sampled_from(stages).map("to:{}".format),
        st.sampled_from(["encoder", "**.bias", "encoder.stage*", "encoder.**.weight", "*"]),
    )
    signed = st.tuples(st.booleans(), one).map(lambda pair: f"not:{pair[1]}" if pair[0] else pair[1])
    return tuple(draw(st.lists(signed, min_size=1, max_size=3, unique=True)))


@st.composite
def policies(draw):
    """A recipe, and a policy of up to two stages with steps in each."""
    name = draw(st.sampled_from(sorted(MODELS)))
    anything = st.one_of(st.just(("full",)), some_terms(name))
    what, later = draw(some_terms(name)), []
    for last in (False, True):
        later += [Unfreeze(draw(anything), after=n) for n in sorted(draw(st.sets(st.integers(1, 4), max_size=2)))]
        if not last and draw(st.booleans()):
            later.append(Unfreeze(draw(anything), plateau=2))
    after = [step.after for step in later if step.after] if not any(s.plateau for s in later) else []
    if after != sorted(set(after)):
        reject()
    return name, Tune(what, later)


@settings(max_examples=60)
@given(policies(), st.integers(1, 5))
def test_what_trains_at_every_epoch(policy, plateau_after):
    name, tune = policy
    model, reading = MODELS[name], READINGS[name]
    parameters = dict(model.named_parameters())
    try:
        token = freeze(model, tune)
    except RunError as error:
        # Refused only for a reason: nothing of a name, nothing at all, or a step that adds nothing.
        sets = [reading.terms(t) for t in (tune.what, *(s.train for s in tune.later))]
        known = [len(terms) for terms in sets]
        empty = [
            t
            for s in (tune.what, *(s.train for s in tune.later))
            for t in s
            if not reading.term(t.removeprefix("not:"), False)
        ]
        adds, so_far = True, set(sets[0])
        for more in sets[1:]:
            adds &= bool(more - so_far)
            so_far |= more
        assert empty or not adds or not so_far or 0 in known, error
        return
    try:
        trains, stage, epochs, index = set(reading.terms(tune.what)), 0, 0, 0
        for epoch in range(9):
            while index < len(tune.later):
                step = tune.later[index]
                if step.after is None and epoch and epoch % plateau_after == 0 and stage == 0:
                    stage, epochs = 1, 0  # as if the score had stopped improving here
                elif step.after is None or step.after > epochs:
                    break
                trains |= reading.terms(step.train)
                index += 1
            token.advance(epochs, stage)
            assert {n for n, p in parameters.items() if p.requires_grad} == trains
            if name == "norms":
                token.train()
                for where, module in model.named_modules():
                    if re.fullmatch(r"encoder\.stage\d\.norm", where):
                        assert module.training == any(n.startswith(f"{where}.") for n in trains), where
            epochs += 1
        ever = set(reading.terms(tune.what)).union(*(reading.terms(s.train) for s in tune.later))
        assert {n for n, p in parameters.items() if token.when(p) is not None} == ever
    finally:
        token.restore()
    assert all(p.requires_grad for p in parameters.values())


@settings(max_examples=30)
@given(st.data())
def test_freezing_is_training_the_rest(data):
    name = data.draw(st.sampled_from(sorted(MODELS)))
    terms = tuple(t for t in data.draw(some_terms(name)) if not t.startswith("not:"))
    if not terms:
        reject()
    model, reading = MODELS[name], READINGS[name]
    frozen = set().union(*(reading.term(t, False) for t in terms))
    tune = Transfer(freeze=terms).settings(Settings()).tuning
    if frozen == set(reading.names):
        with pytest.raises(RunError, match="nothing trains"):
            freeze(model, tune)
        return
    try:
        token = freeze(model, tune)
    except RunError as error:
        assert "has no parameters" in str(error)
        return
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
    token.restore()


@settings(max_examples=40)
@given(st.data())
def test_the_narrowest_rate_counts(data):
    from agblocks.training.tuning.groups import parameter_groups

    name = data.draw(st.sampled_from(["layered", "norms", "mpra_small"]))
    model, reading = MODELS[name], READINGS[name]
    rates = data.draw(st.dictionaries(some_terms(name), st.sampled_from([0.1, 0.5, 2.0]), max_size=4))
    named = {terms: reading.terms(terms, heads=False) for terms in rates}
    wanted, torn = {}, False
    for n in reading.names:
        sizes = sorted((len(inside), rates[terms]) for terms, inside in named.items() if n in inside)
        wanted[n] = sizes[0][1] if sizes else 1.0
        torn |= len({rate for size, rate in sizes if size == sizes[0][0]}) > 1
    ids = {id(p): n for n, p in model.named_parameters()}
    try:
        groups = parameter_groups(model, 0.1, rates=as_rates(list(rates.items())))
    except RunError as error:
        assert ("both name" in str(error)) == torn or "has no parameters" in str(error)
        return
    assert not torn
    assert {ids[id(p)]: g["lr_scale"] for g in groups for p in g["params"]} == wanted


# Norms of frozen parts, on every new way to freeze


WAYS = {
    "freeze": (Tune(("not:to:encoder.stage2",)), [({"3"}, (0, 0)), ({"3"}, (0, 9))]),
    "plateau": (
        Tune(("head",), (Unfreeze("encoder.stage3", after=2), Unfreeze("encoder.stage2", plateau=1), Unfreeze("full", after=1))),
        [(set(), (0, 0)), ({"3"}, (0, 2)), ({"2", "3"}, (1, 0)), ({"1", "2", "3"}, (1, 1))],
    ),
    "pattern": (Tune(("**.bias", "not:encoder.stage3")), [({"1", "2"}, (0, 0))]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_statistics_of_frozen_norms_stay_over_steps(way):
    tune, times = WAYS[way]
    model = made(NORMS)
    token = freeze(model, tune)
    for moving, (stage, epochs) in times:
        token.advance(epochs, stage)
        model.eval()
        token.train()
        before = state(model)
        for seed in range(3):
            x = torch.rand(5, 4, 12, generator=torch.Generator().manual_seed(seed))
            model(dna=x)["activity"].square().sum().backward()
            with torch.no_grad():
                for p in model.parameters():
                    if p.requires_grad:
                        p.sub_(0.01 * p.grad)
            model.zero_grad()
        statistics = {n for n in changed(before, model) if re.search(r"running_|num_batches|mean_square", n)}
        assert {n.split(".")[1][-1] for n in statistics} == moving, (stage, epochs)
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert not frozen & changed(before, model)
