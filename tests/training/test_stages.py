"""Stages that begin at plateaus: when, from which weights, beside a loop by hand; resumed to the byte."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import QUICK, table_and_splits
from tune_helpers import block, changed, made, stack, state, stem

from agblocks import resolve
from agblocks.data import Construct
from agblocks.training import RunError, Settings, Unfreeze, fit, load_run, wire
from agblocks.training.run import FILE
from agblocks.training.tuning.stages import best_of, is_over, stages

DEEPER = stack(stem(), block(channels=6, norm="rms_batch"), block(channels=8, norm="rms_batch", statistics="ema"))
TWO = Settings(
    epochs=12, batch_size=32, lr=3e-2, weight_decay=0.05, tune="head", rates="encoder=0.3",
    unfreeze="plateau:1:3=encoder.stage3,plateau:2x0.1=full", clip=0.5, ema=0.8, warmup=0.2, patience=3, device="cpu",
    monitor="loss",
)  # fmt: skip


# When: against a walk that keeps its own counts


def walk(scores, settings):
    """Epochs after which each stage began, and after which training was over, by counting up from the first epoch."""
    plateaus = [step for step in settings.tuning.later if step.after is None]
    last_joins, joins = [0], 0
    for step in settings.tuning.later:
        if step.after is None:
            last_joins.append(0)
        else:
            last_joins[-1] = step.after
    begun, stage, best, waits, inside = [0], 0, -math.inf, 0, 0
    for epoch, score in enumerate(scores, 1):
        inside += 1
        finite = math.isfinite(best)
        if not finite or score > best:
            best, since_best = score, 0
        else:
            since_best += 1
        joins = inside - last_joins[stage]
        waits = min(since_best, max(0, joins))
        if epoch == settings.epochs:
            return begun, epoch
        if stage < len(plateaus):
            step = plateaus[stage]
            patience = settings.patience if step.plateau is True else step.plateau
            if (patience and waits >= patience) or (step.latest and inside >= step.latest):
                begun.append(epoch)
                stage, best, inside = stage + 1, -math.inf, 0
        elif settings.patience and waits >= settings.patience:
            return begun, epoch
    return begun, None


score = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan))
step = st.one_of(
    st.integers(1, 4),
    st.tuples(st.one_of(st.just(True), st.integers(1, 3)), st.one_of(st.none(), st.integers(1, 6))),
)


@given(st.lists(score, max_size=20), st.lists(step, max_size=4), st.integers(1, 3), st.integers(1, 20))
def test_stages_are_a_function_of_the_scores(scores, steps, patience, epochs):
    later = [
        Unfreeze("head", after=s) if isinstance(s, int) else Unfreeze("head", plateau=s[0], latest=s[1]) for s in steps
    ]
    try:
        settings = Settings(epochs=epochs, patience=patience, tune="**", unfreeze=",".join(map(str, later)))
    except RunError:
        return  # an order that cannot be
    scores = scores[:epochs]
    begun, over = walk(scores, settings)
    for seen in range(len(scores) + 1):
        found = stages(scores[:seen], settings)
        assert [s.begun for s in found] == [b for b in begun if b <= seen]
        assert [s.number for s in found] == list(range(len(found)))
        assert all(s.begun + s.epochs <= epochs and s.epochs > 0 for s in found)
        assert is_over(scores[:seen], settings) == (over is not None and seen >= over)
        if over is not None and seen == over:
            break


def test_the_best_is_the_earliest_of_equals_and_finite():
    assert best_of([]) == 0
    assert best_of([1.0, 3.0, 3.0, 2.0]) == 2
    assert best_of([math.nan, math.nan]) == 2
    assert best_of([math.nan, -1.0, math.nan]) == 2


def test_a_plateau_as_long_as_the_stage_is_a_number_of_epochs():
    """Document 001's second table: everything after N epochs of the head, from the best of them."""
    settings = Settings(epochs=9, tune="head", unfreeze="plateau:4:4=full", patience=2)
    for scores in ([1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0]):
        assert [s.begun for s in stages(scores, settings)] == [0, 4]
    assert [(s.epochs, s.lr, s.last) for s in stages([0.0] * 4, settings)] == [(4, 1.0, False), (5, 1.0, True)]


# Beside a loop by hand


def wired(recipe, table, splits):
    return wire(resolve(recipe), table.target_names).scaled(table.targets[splits.train])


def run_train(model, recipe, settings, folder, data=None):
    from agblocks.training import train

    table, splits = data or table_and_splits()
    own = wired(recipe, table, splits)
    return train.train(model, table, splits, Construct(), own, settings, folder / "0.ckpt", folder / "logs")


def by_hand(model, recipe, settings):
    """Three stages of TWO: AdamW of torch and the rest from formulas; the plateaus by counting."""
    from agblocks.training.data import Batches

    table, splits = table_and_splits()
    own = wired(recipe, table, splits)
    batches = Batches(table, splits, Construct(), own, settings, settings.seed)
    parameters = dict(model.named_parameters())
    parts = [["activity"], ["activity", "stage3"], ["activity", "stage1", "stage2", "stage3"]]
    limits, rates, patiences = [3, math.inf, math.inf], [1.0, 1.0, 0.1], [1, 2, 3]
    kept, kept_score, epoch, begun, losses = None, -math.inf, 0, [], []
    for stage, names in enumerate(parts):
        begun.append(epoch)
        if kept is not None:
            model.load_state_dict(kept)
        joined = [n for n in parameters if any(f"{name}." in n for name in names)]
        groups = [
            {"params": [parameters[n]], "weight_decay": settings.weight_decay if parameters[n].ndim > 1 else 0.0,
             "scale": 0.3 if n.startswith("encoder") else 1.0}
            for n in joined
        ]  # fmt: skip
        optimizer = torch.optim.AdamW(groups, lr=settings.lr)
        steps = min(settings.epochs - epoch, limits[stage]) * len(batches.train)
        warm, step, updates, average = round(settings.warmup * steps), 0, 0, state(model)
        best, since, inside = -math.inf, 0, 0
        while True:
            for name in ("stage1", "stage2", "stage3"):
                getattr(model.encoder, name).norm.train(name in names)
            batches.train.start(epoch)
            for batch in batches.train:
                if step < warm:
                    factor = (step + 1) / (warm + 1)
                else:
                    wave = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
                    factor = settings.final_lr + (1 - settings.final_lr) * wave
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * rates[stage] * factor * group["scale"]
                for p in parameters.values():
                    p.grad = None
                model.loss(model(**own.inputs(batch["inputs"])), batch["targets"]).backward()
                torch.nn.utils.clip_grad_norm_([parameters[n] for n in joined], settings.clip)
                optimizer.step()
                decay = min(settings.ema, (1 + updates) / (10 + updates))
                for n, value in state(model).items():
                    mean = updates and value.is_floating_point()
                    average[n] = decay * average[n] + (1 - decay) * value if mean else value
                updates, step = updates + 1, step + 1
            now = state(model)
            model.load_state_dict(average)
            model.eval()
            with torch.no_grad():
                held = [
                    (model.loss(model(**own.inputs(b["inputs"])), b["targets"]), len(b["index"]))
                    for b in batches.valid[0]
                ]
            model.train()
            model.load_state_dict(now)
            loss = float(sum(value * n for value, n in held) / sum(n for _, n in held))
            losses.append(loss)
            epoch, inside = epoch + 1, inside + 1
            if -loss > kept_score:
                kept, kept_score = {n: v.clone() for n, v in average.items()}, -loss
            best, since = (-loss, 0) if -loss > best else (best, since + 1)
            if epoch == settings.epochs:
                return kept, begun, losses
            if since >= patiences[stage] or inside >= limits[stage]:
                break
    return kept, begun, losses


@pytest.mark.parametrize("seed", [0, 3])
def test_a_training_by_plateaus_is_the_loop_by_hand(tmp_path, seed):
    settings = replace(TWO, seed=seed)
    model, other = made(DEEPER, seed), made(DEEPER, seed)
    keeper = run_train(model, DEEPER, settings, tmp_path)
    kept, begun, losses = by_hand(other, DEEPER, settings)
    assert [stage.begun for stage in keeper.stages] == begun
    assert len(begun) > 1, "the scores of these seeds have plateaus"
    np.testing.assert_allclose([row["valid_loss"] for row in keeper.history], losses, rtol=1e-4)
    for name, value in kept.items():
        torch.testing.assert_close(keeper.best[name], value, rtol=1e-4, atol=1e-5)


def fitting():
    from agblocks.training import module

    return module.Fitting


def test_each_stage_starts_from_the_best_weights_with_nothing_else_left(tmp_path, monkeypatch):
    cls = fitting()
    seen = []
    begin, end = cls.on_train_epoch_start, cls.on_train_epoch_end

    def start(self):
        begin(self)
        self.then = state(self.model)
        seen.append((self.stage.number, self.then, dict(self.trainer.optimizers[0].state), self.average and
                     int(self.average.n_averaged), self.lr_schedulers().last_epoch, set()))  # fmt: skip

    def stop(self):
        end(self)
        seen[-1][-1].update(n.split(".")[n.startswith("encoder")] for n in changed(self.then, self.model))

    kept = []
    real = cls.begin

    def begun(self, stage, best=None):
        if best is not None:
            kept.append({n: v.clone() for n, v in best.items()})
        real(self, stage, best)

    for name, method in (("on_train_epoch_start", start), ("on_train_epoch_end", stop), ("begin", begun)):
        monkeypatch.setattr(cls, name, method)
    keeper = run_train(made(DEEPER), DEEPER, TWO, tmp_path)
    numbers = [number for number, *_ in seen]
    assert len(kept) == numbers[-1] > 0
    trains = [{"activity"}, {"activity", "stage3"}, {"activity", "stage1", "stage2", "stage3"}]
    for i, (number, weights, optimizer, averaged, steps, moved) in enumerate(seen):
        assert moved == trains[number]
        if i == 0 or numbers[i - 1] != number:
            assert (optimizer, averaged, steps) == ({}, 0, 0)
            if i:
                assert all(torch.equal(weights[n], v) for n, v in kept[number - 1].items())
        else:
            assert optimizer and averaged and steps
    rates = [row["lr"] for row in keeper.history]
    assert max(rates) <= TWO.lr * (1 + 1e-9)
    if numbers[-1] == 2:
        assert max(rates[numbers.index(2) :]) <= 0.1 * TWO.lr * (1 + 1e-9)


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_every_schedule_starts_anew(tmp_path, schedule):
    settings = replace(TWO, schedule=schedule, unfreeze="plateau:3:3x0.5=full", patience=0, epochs=7, ema=0.0)
    rates = [row["lr"] for row in run_train(made(DEEPER), DEEPER, settings, tmp_path).history]
    alone = replace(settings, unfreeze="", epochs=4, tune="**", lr=0.5 * settings.lr)
    wanted = [row["lr"] for row in run_train(made(DEEPER), DEEPER, alone, tmp_path / "alone").history]
    assert rates[3:] == pytest.approx(wanted)
    first = replace(settings, unfreeze="", epochs=3)
    assert rates[:3] == pytest.approx(
        [row["lr"] for row in run_train(made(DEEPER), DEEPER, first, tmp_path / "1").history]
    )


def test_the_last_stage_may_keep_its_last_epoch(tmp_path):
    settings = replace(TWO, unfreeze="plateau:1:3=full", keep="last", patience=0, epochs=6)
    keeper = run_train(made(DEEPER), DEEPER, settings, tmp_path)
    assert keeper.best_epoch == 6


# Resuming


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "run"
    fit(DEEPER, *table_and_splits(), folder, replace(QUICK, epochs=1, seed=5))
    return folder


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("kind", ["cosine", "onecycle"])
def test_resuming_across_stages_gives_the_same_file(start, measured, tmp_path, monkeypatch, precision, kind):
    """Broken off in every stage, and in the first step of each; the loss overflows where it is scaled."""
    cls = fitting()
    begin, step, count, stop = cls.on_train_batch_start, cls.training_step, [0], [None]
    firsts = {}

    def counted(self, batch, batch_idx):
        firsts.setdefault(self.stage.number, self.global_step)
        count[0] += 1
        if count[0] == stop[0]:
            raise Interrupted
        begin(self, batch, batch_idx)

    def overflow(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * math.inf if precision == "16-mixed" and self.global_step in (2, 9, 17) else loss

    monkeypatch.setattr(cls, "on_train_batch_start", counted)
    monkeypatch.setattr(cls, "training_step", overflow)
    settings = replace(TWO, precision=precision, schedule=kind, epochs=7, reverse_complement=0.5)
    transfer = {"weights": [{"from": str(start), "into": ["encoder"]}], "reinit": "encoder.stage3"}
    fit(DEEPER, *measured, tmp_path / "whole", settings, transfer=transfer)
    steps = count[0]
    assert len(firsts) > 1
    wanted = (tmp_path / "whole" / FILE).read_bytes()
    for at in sorted({3, *(first + 1 for first in firsts.values() if first), steps - 1}):
        count[0], stop[0] = 0, at
        out = tmp_path / f"run{at}"
        with pytest.raises(Interrupted):
            fit(DEEPER, *measured, out, settings, transfer=transfer)
        stop[0] = None
        fit(DEEPER, *measured, out, settings, transfer=transfer, resume=True)
        assert (out / FILE).read_bytes() == wanted, at
        assert (out / "members/0.csv").read_text() == (tmp_path / "whole/members/0.csv").read_text()


def test_a_resume_with_another_schedule_is_refused(measured, tmp_path):
    settings = replace(TWO, epochs=3)
    fit(DEEPER, *measured, tmp_path / "run", settings)
    other = replace(settings, unfreeze="plateau:1:3=encoder.stage3,plateau:3x0.1=full")
    with pytest.raises(RunError, match=r"settings.unfreeze was plateau:1:3=.*, is plateau"):
        fit(DEEPER, *measured, tmp_path / "run", other, resume=True)


def test_plateaus_need_something_to_see(tmp_path):
    table, splits = table_and_splits()
    blind = replace(splits, valid=splits.valid[:0])
    with pytest.raises(RunError, match="a plateau of the validation score needs validation rows"):
        fit(DEEPER, table, blind, tmp_path / "run", TWO)
    assert not (tmp_path / "run").exists()
    run = fit(DEEPER, table, blind, tmp_path / "run", replace(TWO, unfreeze="plateau:2:2=full", epochs=4, ema=0.0))
    assert run.metrics["members"][0]["epochs"] == 4
    with pytest.raises(RunError, match="a plateau without a patience, and patience is 0; say plateau:5"):
        Settings(tune="head", unfreeze="plateau=full", patience=0)


def test_what_began_when_is_kept(measured, tmp_path):
    run = fit(DEEPER, *measured, tmp_path / "run", replace(TWO, unfreeze="plateau:2:2=full", epochs=4))
    assert load_run(tmp_path / "run").metrics["members"][0]["stages"] == [0, 2]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["members"][0]["stages"] == [0, 2]
    assert run.settings.tuning.plateaus[0].train == ("full",)


def test_stages_beside_adapters(start, measured, tmp_path, monkeypatch):
    """The adapters begin, the base joins at a plateau with norms and all; broken off after that, and resumed."""
    cls = fitting()
    begin, firsts, stop = cls.on_train_batch_start, {}, [None]

    def counted(self, batch, batch_idx):
        firsts.setdefault(self.stage.number, self.global_step)
        if self.global_step == stop[0]:
            raise Interrupted
        begin(self, batch, batch_idx)

    monkeypatch.setattr(cls, "on_train_batch_start", counted)
    settings = replace(TWO, epochs=4, rates="")
    transfer = {"weights": str(start), "adapters": ["locon:role=conv.main,rank=2"], "freeze": "full",
                "unfreeze": "plateau:2:2x0.5=encoder+activity"}  # fmt: skip
    settings = replace(settings, tune="", unfreeze="")
    whole = fit(DEEPER, *measured, tmp_path / "whole", settings, transfer=transfer)
    assert whole.settings.tune == "not:**"
    assert whole.metrics["members"][0]["stages"] == [0, 2]
    stop[0] = firsts[1] + 1
    with pytest.raises(Interrupted):
        fit(DEEPER, *measured, tmp_path / "run", settings, transfer=transfer)
    stop[0] = None
    fit(DEEPER, *measured, tmp_path / "run", settings, transfer=transfer, resume=True)
    assert (tmp_path / "run" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    base = load_run(start).model.state_dict()
    moved = {n for n, v in whole.model.base.state_dict().items() if not torch.equal(v, base[n])}
    kept = whole.metrics["members"][0]["kept"]["epoch"]
    assert moved == (set(base) if kept > 2 else set())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_go_through_the_same_stages(measured, tmp_path, strategy):
    from parallel_helpers import NORMS, difference, history, rows

    settings = replace(TWO, tune="head", unfreeze="plateau:1:2=block,plateau:1:2x0.3=full", rates="", epochs=6, lr=1e-2)
    fit(NORMS, *rows(), tmp_path / "one", settings)
    fit(NORMS, *rows(), tmp_path / "two", replace(settings, devices=2, strategy=strategy))
    for mine, theirs in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    one, two = load_run(tmp_path / "one"), load_run(tmp_path / "two")
    assert one.metrics["members"][0]["stages"] == two.metrics["members"][0]["stages"]
    assert len(one.metrics["members"][0]["stages"]) == 3
    assert difference(one.model, two.model) < 1e-4
