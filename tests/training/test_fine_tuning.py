"""Whole trainings with parts frozen, beside a loop written by hand; order of scaling; resuming; starting weights."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from training_helpers import QUICK, SMALL, table_and_splits
from tune_helpers import LAYERED, block, changed, made, stack, state, stem, trained_names

from agblocks import resolve
from agblocks.cli import main
from agblocks.data import Construct, DataError, split_by_fold
from agblocks.training import RunError, Settings, crossval, fit, load_run, wire
from agblocks.training.average import Average
from agblocks.training.run import FILE
from agblocks.training.seen import seen
from agblocks.training.tuning.frozen import freeze

# No bias before a batch norm: its gradient is rounding, which Adam makes large.
DEEPER = stack(stem(), block(channels=6, norm="rms_batch"), block(channels=8, norm="rms_batch", statistics="ema"))
GRADUAL = Settings(
    epochs=4, batch_size=32, lr=1e-2, weight_decay=0.05, tune="head", unfreeze="1=encoder.stage3,3=full",
    layer_decay=0.5, head_lr=3.0, clip=0.5, ema=0.9, warmup=0.2, patience=0, keep="last", device="cpu",
)  # fmt: skip


def training():
    from agblocks.training import train

    return train


def fitting():
    from agblocks.training import module

    return module.Fitting


def wired(recipe, table, splits):
    return wire(resolve(recipe), table.target_names).scaled(table.targets[splits.train])


def run_train(model, recipe, settings, folder, data=None):
    table, splits = data or table_and_splits()
    made_wiring = wired(recipe, table, splits)
    return training().train(
        model, table, splits, Construct(), made_wiring, settings, folder / "0.ckpt", folder / "logs"
    )


# Beside a loop by hand


def by_hand(model, recipe, settings):
    """AdamW, cosine, clipping, average and frozen norms from their formulas, for the policy of GRADUAL."""
    from agblocks.training.data import Batches

    table, splits = table_and_splits()
    made_wiring = wired(recipe, table, splits)
    batches = Batches(table, splits, Construct(), made_wiring, settings, settings.seed).train
    steps = settings.epochs * len(batches)
    warm = round(settings.warmup * steps)
    parameters = dict(model.named_parameters())
    joins = {n: 0 if n.startswith("activity") else 1 if ".stage3." in n else 3 for n in parameters}
    scale = {
        n: 3.0 if n.startswith("activity") else {"1": 0.25, "2": 0.5, "3": 1.0}[n.split(".")[1][-1]] for n in parameters
    }
    first = {n: torch.zeros_like(p) for n, p in parameters.items()}
    second = {n: torch.zeros_like(p) for n, p in parameters.items()}
    times = dict.fromkeys(parameters, 0)
    average, updates, step = {}, 0, 0
    for epoch in range(settings.epochs):
        for stage, join in (("stage1", 3), ("stage2", 3), ("stage3", 1)):
            getattr(model.encoder, stage).norm.train(epoch >= join)
        active = [n for n in parameters if joins[n] <= epoch]
        batches.start(epoch)
        for batch in batches:
            loss = model.loss(model(**made_wiring.inputs(batch["inputs"])), batch["targets"])
            gradients = torch.autograd.grad(loss, [parameters[n] for n in active])
            norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
            if step < warm:
                rate = (step + 1) / (warm + 1)
            else:
                part = (step - warm) / (steps - warm)
                rate = settings.final_lr + (1 - settings.final_lr) * (1 + math.cos(math.pi * part)) / 2
            with torch.no_grad():
                for n, g in zip(active, gradients, strict=True):
                    g = g * min(1.0, settings.clip / (norm + 1e-6))
                    lr = settings.lr * rate * scale[n]
                    p = parameters[n]
                    times[n] += 1
                    if p.ndim > 1:
                        p.mul_(1 - lr * settings.weight_decay)
                    first[n].mul_(0.9).add_(0.1 * g)
                    second[n].mul_(0.999).add_(0.001 * g * g)
                    mean, square = first[n] / (1 - 0.9 ** times[n]), second[n] / (1 - 0.999 ** times[n])
                    p.sub_(lr * mean / (square.sqrt() + 1e-8))
                decay = min(settings.ema, (1 + updates) / (10 + updates))
                for n, value in state(model).items():
                    if updates == 0 or not value.is_floating_point():
                        average[n] = value
                    else:
                        average[n] = decay * average[n] + (1 - decay) * value
            updates, step = updates + 1, step + 1
    return average


def test_a_training_is_the_loop_by_hand(tmp_path):
    model, other = made(DEEPER), made(DEEPER)
    before = state(model)
    keeper = run_train(model, DEEPER, GRADUAL, tmp_path)
    average = by_hand(other, DEEPER, GRADUAL)
    assert len(keeper.history) == 4
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(keeper.best[name], average[name], rtol=1e-4, atol=1e-5)
    assert changed(before, model) == set(before)
    assert trained_names(model) == {n for n, _ in model.named_parameters()}  # as before training
    assert keeper.history[-1]["lr"] == pytest.approx(GRADUAL.lr * GRADUAL.final_lr)


def test_each_part_waits_for_its_epoch(tmp_path, monkeypatch):
    cls = fitting()
    seen = []
    begin, end = cls.on_train_epoch_start, cls.on_train_epoch_end

    def start(self):
        begin(self)
        self.then = state(self.model)

    def stop(self):
        end(self)
        seen.append({n.split(".")[n.startswith("encoder")] for n in changed(self.then, self.model)})

    monkeypatch.setattr(cls, "on_train_epoch_start", start)
    monkeypatch.setattr(cls, "on_train_epoch_end", stop)
    run_train(made(DEEPER), DEEPER, GRADUAL, tmp_path)
    two = {"activity", "stage3"}
    assert seen == [{"activity"}, two, two, {"activity", "stage1", "stage2", "stage3"}]


@pytest.mark.parametrize("tune", ["head", "last:1", "from:encoder.stage3", "**.bias"])
def test_what_is_frozen_is_bit_equal_and_not_saved(tmp_path, tune):
    settings = replace(GRADUAL, epochs=2, tune=tune, unfreeze="", ema=0.5)
    model = made(DEEPER)
    before = state(model)
    keeper = run_train(model, DEEPER, settings, tmp_path)
    token = freeze(made(DEEPER), tune)
    wanted = trained_names(token.model)
    moved = changed(before, model)
    assert {n for n, _ in model.named_parameters()} & moved == wanted
    assert moved == set(keeper.best)
    saved = torch.load(tmp_path / "0.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {f"{p}{n}" for p in ("model.", "average.module.") for n in moved} | {"average.n_averaged"}
    assert all(m.training for m in model.modules())


def test_frozen_norms_rest_after_every_train():
    table, splits = table_and_splits()
    model = made(DEEPER)
    module = fitting()(model, wired(DEEPER, table, splits), replace(GRADUAL, unfreeze="3=encoder.stage1"), 20, 0)
    norms = [model.encoder.stage1.norm, model.encoder.stage2.norm, model.encoder.stage3.norm]
    for epochs, training_ones in ((0, [False] * 3), (3, [True, False, False]), (0, [False] * 3)):
        module.frozen.advance(epochs)
        for again in (module.train, lambda: module.eval().train(), lambda: module.frozen.train(True)):
            again()
            assert [norm.training for norm in norms] == training_ones
            assert model.encoder.stage1.conv.training and model.activity.training
        module.eval()
        assert not any(m.training for m in module.modules())
        module.train()


# The moving average


def test_the_average_is_torchs_where_everything_trains():
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = made(DEEPER)
    ours = Average(model, 0.999)  # its warm-up is above: (1 + n) / (10 + n)
    theirs = AveragedModel(
        model, multi_avg_fn=lambda a, b, n: get_ema_multi_avg_fn(min(0.999, (1 + int(n)) / (10 + int(n))))(a, b, n),
        use_buffers=True,
    )  # fmt: skip
    for i in range(20):
        with torch.no_grad():
            for j, p in enumerate(model.parameters()):
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * i + j)))
        ours.update(model)
        theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(ours.module.state_dict()[name], value)


def test_the_average_shares_what_never_changes():
    model = made(LAYERED)
    token = freeze(model, "last:1")
    fixed = {id(t) for t in token.fixed()}
    average = Average(model, 0.9, token.fixed())
    held = dict(average.module.named_parameters()) | dict(average.module.named_buffers())
    mine = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in mine.items():
        assert (held[name] is tensor) == (id(tensor) in fixed), name
    copied = sum(t.numel() for n, t in held.items() if t is not mine[n] and n in model.state_dict())
    assert copied < 0.7 * sum(t.numel() for t in model.state_dict().values())
    assert not any(p.requires_grad for p in average.module.parameters() if id(p) not in fixed)
    assert trained_names(model) == trained_names(token.model)
    first = state(model)
    average.update(model)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(1.0)
    average.update(model)  # decay (1 + 1) / (10 + 1)
    for name, p in model.named_parameters():
        wanted = first[name] * 2 / 11 + p * 9 / 11 if p.requires_grad else first[name]
        torch.testing.assert_close(average.module.get_parameter(name), wanted)


# Precision


def test_half_precision_is_what_it_says(tmp_path, monkeypatch):
    """Lightning, asked for 16-mixed on a CPU, would take bfloat16 in silence."""
    cls = fitting()
    seen = []
    stem_forward = cls._loss

    def looked(self, model, batch, outputs):
        hook = self.model.encoder.stage1.conv.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
        try:
            return stem_forward(self, model, batch, outputs)
        finally:
            hook.remove()

    monkeypatch.setattr(cls, "_loss", looked)
    scores = {}
    for precision, kind in (("16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)):
        seen.clear()
        keeper = run_train(made(DEEPER), DEEPER, replace(GRADUAL, precision=precision, ema=0.0), tmp_path / precision)
        assert set(seen) == {kind}
        assert all(v.dtype in (torch.float32, torch.int64) for v in keeper.best.values())
        scores[precision] = keeper.history[-1]["train_loss"]
    assert scores["16-mixed"] == pytest.approx(scores["32-true"], abs=0.02)
    assert scores["bf16-mixed"] == pytest.approx(scores["32-true"], abs=0.05)


OVERFLOWS = (2, 7)


def overflow(monkeypatch):
    """Make the gradients of some steps infinite."""
    cls = fitting()
    real = cls.training_step

    def step(self, batch, batch_idx):
        loss = real(self, batch, batch_idx)
        self._losses[-1] = (loss.detach(), self._losses[-1][1])
        return loss * math.inf if self.global_step in OVERFLOWS else loss

    monkeypatch.setattr(cls, "training_step", step)


@pytest.mark.parametrize("kind", ["cosine", "onecycle"])
def test_a_skipped_step_skips_schedule_and_average(tmp_path, monkeypatch, kind):
    """Order: backward, unscale, clip, step, update, schedule, average; without a step neither of the last two."""
    overflow(monkeypatch)
    cls, events, rows, norms = fitting(), [], [], []

    def told(owner, method, name):
        real = getattr(owner, method)

        def called(*args, **kwargs):
            events.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, method, called)

    begun = torch.amp.GradScaler.__init__  # as built, the first gradients overflow by themselves
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", lambda self, device: begun(self, device, init_scale=256.0))
    told(torch.amp.GradScaler, "unscale_", "unscale")
    told(torch.amp.GradScaler, "update", "update")
    told(torch.nn.utils, "clip_grad_norm_", "clip")
    told(
        torch.optim.lr_scheduler.LambdaLR if kind == "cosine" else torch.optim.lr_scheduler.OneCycleLR,
        "step",
        "schedule",
    )
    told(Average, "update", "average")
    monkeypatch.setattr(cls, "on_after_backward", lambda self: events.append("backward"))
    begin, end, configure = cls.on_train_batch_start, cls.on_train_batch_end, cls.configure_optimizers

    def configured(self):
        made_ones = configure(self)
        parameters = [p for g in made_ones["optimizer"].param_groups for p in g["params"]]

        def stepping(*_):
            events.append("step")
            norms.append(float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()))

        made_ones["optimizer"].register_step_pre_hook(stepping)
        self.chosen = made_ones["lr_scheduler"]["scheduler"]
        return made_ones

    def start(self, batch, batch_idx):
        events.clear()
        self.then = state(self.model)
        begin(self, batch, batch_idx)

    def stop(self, outputs, batch, batch_idx):
        end(self, outputs, batch, batch_idx)
        scale = self.trainer.precision_plugin.scaler.get_scale()
        weights = {n for n, _ in self.model.named_parameters()} & changed(self.then, self.model)
        rows.append((list(events), self.chosen.last_epoch, int(self.average.n_averaged), scale, bool(weights)))

    monkeypatch.setattr(cls, "configure_optimizers", configured)
    monkeypatch.setattr(cls, "on_train_batch_start", start)
    monkeypatch.setattr(cls, "on_train_batch_end", stop)
    settings = replace(GRADUAL, schedule=kind, precision="16-mixed", clip=0.05, tune="from:encoder.stage3", unfreeze="")
    run_train(made(DEEPER), DEEPER, settings, tmp_path)
    assert len(rows) == 20
    taken, scale = 0, 256.0
    for i, (order, at, averaged, now, moved) in enumerate(rows):
        if i in OVERFLOWS:
            assert order == ["backward", "unscale", "clip", "update"]
            assert not moved
            scale /= 2
        else:
            assert order == ["backward", "unscale", "clip", "step", "update", "schedule", "average"]
            assert moved
            taken += 1
        assert (at, averaged, now) == (taken, taken, scale)
    assert taken == 18
    # Clipped in real units, not in scaled ones: the gradients are as small as that, and no smaller.
    assert max(norms) == pytest.approx(0.05, rel=1e-3)


def test_clipping_sees_what_trains_alone(tmp_path, monkeypatch):
    seen = []
    real = torch.nn.utils.clip_grad_norm_

    def clip(parameters, *args, **kwargs):
        parameters = list(parameters)
        seen.append({id(p) for p in parameters})
        return real(parameters, *args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    model = made(DEEPER)
    run_train(model, DEEPER, replace(GRADUAL, epochs=1, tune="head", unfreeze=""), tmp_path)
    assert len(seen) == 5
    assert all(s == {id(p) for p in model.activity.parameters()} for s in seen)


# Resuming


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [3, 8, 17])
@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_resuming_gives_the_same_file(measured, tmp_path, monkeypatch, at, precision):
    """In the first epoch, after a part has joined, after all have; the loss overflows twice where it is scaled."""
    settings = replace(GRADUAL, precision=precision, keep="best", reverse_complement=0.5)
    if precision == "16-mixed":
        overflow(monkeypatch)
    start = tmp_path / "start"
    fit(DEEPER, *measured, start, replace(settings, epochs=1, tune="full", unfreeze="", seed=5))
    options = {"weights": start, "weights_into": "encoder"}
    fit(DEEPER, *measured, tmp_path / "whole", settings, **options)
    cls = fitting()
    begin, count = cls.on_train_batch_start, [0]

    def counted(self, batch, batch_idx):
        count[0] += 1
        if count[0] == at:
            raise Interrupted
        begin(self, batch, batch_idx)

    monkeypatch.setattr(cls, "on_train_batch_start", counted)
    with pytest.raises(Interrupted):
        fit(DEEPER, *measured, tmp_path / "run", settings, **options)
    fit(DEEPER, *measured, tmp_path / "run", settings, resume=True, **options)
    assert (tmp_path / "run" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    history = "members/0.csv"
    assert (tmp_path / "run" / history).read_text() == (tmp_path / "whole" / history).read_text()


def test_a_checkpoint_of_another_policy_is_refused(tmp_path):
    run_train(made(DEEPER), DEEPER, replace(GRADUAL, epochs=1, tune="last:1", unfreeze=""), tmp_path)
    with pytest.raises(RunError, match=r"the checkpoint is of another training: '.*' is missing or unknown"):
        run_train(made(DEEPER), DEEPER, replace(GRADUAL, epochs=2, tune="last:2", unfreeze=""), tmp_path)


# Weights to start from


RENAMED = {
    **SMALL,
    "name": "renamed",
    "heads": {"other": {"block": "head.scalar", "in": "stem", "args": {"pool": "max", "hidden": [5]}}},
}


@pytest.mark.parametrize("file", [".", "model.safetensors"])
def test_weights_that_have_seen_the_test_rows(run_folder, measured, tmp_path, file):
    table, splits = measured
    other = split_by_fold(table, valid="0", test="2")
    said = rf"trained or validated on {len(other.test)} of the {len(other.test)} test rows: hold out"
    with pytest.raises(DataError, match=said):
        fit(RENAMED, table, other, tmp_path / "run", replace(QUICK, epochs=1), weights=run_folder / file)
    assert not (tmp_path / "run").exists()
    fit(RENAMED, table, replace(splits, valid=splits.train, train=splits.valid), tmp_path / "run",
        replace(QUICK, epochs=1), weights=run_folder / file)  # fmt: skip


def test_what_weights_had_seen_is_handed_on(run_folder, measured, tmp_path):
    """A run on other rows starts from the run: who starts from it must not be tested on the first one's rows."""
    table, splits = measured
    there, parted = table_and_splits(seed=7)
    quick = replace(QUICK, epochs=1)
    fit(RENAMED, there, parted, tmp_path / "second", quick, weights=run_folder)
    assert seen(tmp_path / "second", table, Construct()).sum() == len(splits.train) + len(splits.valid)
    other = split_by_fold(table, valid="0", test="2")
    with pytest.raises(DataError, match=r"second, or a run that it started from, was .* of the \d+ test rows"):
        fit(RENAMED, table, other, tmp_path / "third", quick, weights=tmp_path / "second")
    fit(RENAMED, table, splits, tmp_path / "third", quick, weights=tmp_path / "second")


def test_a_file_of_rows_that_is_not_one(run_folder, tmp_path):
    table, _ = table_and_splits()
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    assert seen(folder, table, Construct()).any()
    for content in (b"", b"id\tpart\nx\ttrain\n", b"\n"):
        (folder / "rows.tsv").write_bytes(content)
        assert not seen(folder, table, Construct()).any()
    (folder / "rows.tsv").write_bytes(b"part\tid\tinsert\n\xff\xfe")
    with pytest.raises(RunError, match=r"rows\.tsv: cannot be read: "):
        seen(folder, table, Construct())


def test_cross_validation_asks_of_all_folds_first(run_folder, measured, tmp_path):
    """Weights that held out fold 0 are good for that fold alone: said before any fold trains."""
    table, _ = measured
    with pytest.raises(DataError, match=r"^fold 1: .* \(\d+ of \d+ folds; --only 0 would do\)$"):
        crossval(SMALL, table, tmp_path / "cv", replace(QUICK, epochs=1), weights=run_folder, kmer=0)
    assert not (tmp_path / "cv").exists()
    made = crossval(SMALL, table, tmp_path / "cv", replace(QUICK, epochs=1), weights=run_folder, kmer=0, only=["0"])
    assert [fold.test for fold in made.folds] == ["0"]


def test_training_starts_from_weights(run_folder, measured, tmp_path):
    table, splits = measured
    told = []
    settings = replace(QUICK, epochs=2, tune="head", ensemble=2)
    run = fit(RENAMED, table, splits, tmp_path / "run", settings, weights=run_folder, told=told.append)
    trunk = {n: v for n, v in load_run(run_folder).model.state_dict().items() if n.startswith("stem")}
    for member, model in enumerate(run.models):
        drawn = made(RENAMED, seed=member)
        for name, value in model.state_dict().items():
            if name in trunk:
                assert torch.equal(value, trunk[name]), name  # statistics too
            else:
                assert name.startswith("other")
                assert value.shape == drawn.state_dict()[name].shape
    record = json.loads(json.dumps(run.data["weights"]))
    assert record["loaded"] == len(trunk) - ("stem.norm.num_batches_tracked" not in trunk)
    assert set(record["left"]) == {n for n in run.model.state_dict() if n.startswith("other")}
    assert run.data["parameters"]["trained"] == sum(p.numel() for p in run.model.other.parameters())
    report, table_said = told
    assert str(run_folder) in report
    assert "other" in table_said and "parameters train" in table_said
    with pytest.raises(RunError, match=r"weights was \w{64}, is None"):
        fit(RENAMED, table, splits, tmp_path / "run", settings, resume=True)


SAME = {**SMALL, "name": "same", "heads": {"other": SMALL["heads"]["activity"]}}  # the digest knows no names


@pytest.mark.parametrize("recipe", [RENAMED, SAME], ids=["renamed", "same"])
def test_a_head_the_file_lacks_starts_as_drawn(run_folder, measured, tmp_path, monkeypatch, recipe):
    started = []
    train = training().train
    monkeypatch.setattr(training(), "train", lambda model, *args: started.append(state(model)) or train(model, *args))
    run = fit(recipe, *measured, tmp_path / "run", replace(QUICK, epochs=1, seed=4), weights=run_folder)
    drawn = made(recipe, seed=4).state_dict()
    assert set(run.data["weights"]["left"]) == {n for n in drawn if n.startswith("other")}
    assert all(torch.equal(started[0][n], v) for n, v in drawn.items() if n.startswith("other"))
    assert not torch.equal(started[0]["stem.conv.weight"], drawn["stem.conv.weight"])


def only(run_folder, start):
    held = load_run(run_folder).model.state_dict()
    return {n: v for n, v in held.items() if n.startswith(start) or n == "stem.norm.weight"}


def test_what_is_wrong_is_said_before_a_folder_is_made(run_folder, measured, tmp_path):
    out = tmp_path / "run"
    for options, settings, message in (
        ({"weights": tmp_path / "nowhere.pt"}, QUICK, "nowhere.pt"),
        ({"weights": run_folder, "weights_into": "ste"}, QUICK, "ste"),
        ({"weights": {"stem.conv.weight": torch.zeros(3)}}, QUICK, "stem.conv.weight"),
        (
            {"weights": {**load_run(run_folder).model.state_dict(), "stem.conv.bias": torch.zeros(8)}},
            QUICK,
            "stem.conv.bias",
        ),
        ({"weights": only(run_folder, "activity")}, QUICK, "stem.conv.weight"),
        ({}, replace(QUICK, tune="last:2"), "tune last:2"),
        ({}, replace(QUICK, tune="head", unfreeze="1=stam"), "did you mean stem"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(SMALL, *measured, out, settings, **options)
        assert not out.exists()


def test_the_command_line(run_folder, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "renamed.yaml"
    recipe.write_text(json.dumps(RENAMED))
    out = tmp_path / "run"
    words = ["agblocks", "fit", recipe, "--data", "simulated", "-o", out, "--epochs", 2, "--device", "cpu"]
    words += ["--weights", run_folder, "--tune", "head", "--unfreeze", "1=stem.norm+stem.conv.weight"]
    words += ["--layer-decay", 0.5, "--head-lr", 10, "--min-scale", 0.1]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "tensors loaded" in said.out
    assert "after 1 epoch " in said.out
    kept = load_run(out)
    assert (kept.settings.tune, kept.settings.unfreeze) == ("head", "1=stem.norm+stem.conv.weight")
    assert (kept.settings.layer_decay, kept.settings.head_lr, kept.settings.min_scale) == (0.5, 10.0, 0.1)
    assert kept.data["weights"]["source"].startswith(str(run_folder))


# Adapters


def test_adapters_train_by_the_same_module(tmp_path):
    from agblocks.adapters import adapt

    def adapted():
        return adapt(made(DEEPER), ["lora:role=conv.main,rank=2"], train=["activity"])

    model = adapted()
    before, flags = state(model), trained_names(model)
    settings = replace(GRADUAL, tune="full", unfreeze="", layer_decay=1.0)
    keeper = run_train(model, DEEPER, settings, tmp_path)
    moved = changed(before, model)
    assert trained_names(model) == flags
    assert moved == flags == set(keeper.best)
    assert any(n.startswith("bank.") for n in moved)
    assert {n for n in moved if n.startswith("base.")} == {n for n in moved if n.startswith("base.activity.")}
    again = adapted()
    run_train(again, DEEPER, replace(settings, epochs=2), tmp_path / "again")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "0.ckpt").write_bytes((tmp_path / "again" / "0.ckpt").read_bytes())
    assert set(torch.load(tmp_path / "two" / "0.ckpt", weights_only=True)["callbacks"]["Keeper"]["best"]) == flags
    # Parts that join later bring their norms, which the adapters' own wrapper had put to rest.
    model = adapted()
    before = state(model)
    later = replace(settings, tune="activity", unfreeze="1=encoder.stage1")
    run_train(model, DEEPER, later, tmp_path / "later")
    moved = {n for n in changed(before, model) if n.startswith("base.encoder")}
    assert {n.split(".")[2] for n in moved} == {"stage1"}
    assert "base.encoder.stage1.norm.running_mean" in moved
    assert trained_names(model) == flags
    assert not model.base.encoder.stage1.norm.training
    # Norms that are to follow the batches do, frozen as they are, and are kept.
    model = adapt(made(DEEPER), ["lora:role=conv.main,rank=2"], norms="track")
    before = state(model)
    keeper = run_train(model, DEEPER, settings, tmp_path / "track")
    statistics = {n for n in before if n.rpartition(".")[2] in ("running_mean", "running_var", "mean_square")}
    assert len(statistics) == 4
    assert statistics <= changed(before, model) and statistics <= set(keeper.best)
    # The head frozen by the policy: adapters stay as adapt() left them.
    model = adapted()
    before = state(model)
    run_train(model, DEEPER, replace(settings, tune="encoder.stage3", head_lr=1.0), tmp_path / "stage")
    assert {n.split(".")[0] + n.split(".")[1] for n in changed(before, model)} == {"banksites", "baseencoder"}
