"""Adapters trained by `fit`: what moves and what does not, the run folder, resuming, the combinations of modes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from training_helpers import QUICK, table_and_splits
from typer.testing import CliRunner

import agblocks
from agblocks import AdapterSpec, build, load_weights
from agblocks.adapters import Adapted, load_adapter
from agblocks.cli import app
from agblocks.errors import AgblocksError
from agblocks.graph.adapter_kinds import kinds
from agblocks.training import RunError, Settings, fit, load_run, predict
from agblocks.training.module import Fitting
from agblocks.training.run import FILE
from agblocks.training.tuning.groups import groups_of

ATTENTION = {
    "recipe": 1,
    "name": "attention",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 12, "kernel": 7, "norm": "batch"}},
        "tower": {
            "block": "tower.alphagenome",
            "in": "stem",
            "args": {"depth": 2, "heads": 2, "key_dim": 8, "value_dim": 8, "pair": False, "statistics": "ema"},
        },
    },
    "heads": {"activity": {"block": "head.scalar", "in": "tower", "args": {"pool": "mean", "hidden": [8]}}},
}
LORA = {"adapter": "lora", "role": ["attn.q", "attn.v"], "rank": 2}
MODES = {
    "lora": ["lora:role=attn.q+attn.v,rank=2"],
    "locon": ["locon:role=conv.main,rank=2"],
    "ia3": ["ia3", "ia3_ff"],
    "houlsby": ["houlsby:latent=4"],
}
SETTINGS = replace(QUICK, epochs=2)


@pytest.fixture(scope="module")
def rows():
    return table_and_splits(rows=120, length=48)


@pytest.fixture(scope="module")
def base(rows, tmp_path_factory):
    """What is adapted: a run of its own."""
    folder = tmp_path_factory.mktemp("base") / "run"
    fit(ATTENTION, *rows, folder, replace(SETTINGS, epochs=1, seed=7))
    return folder


@pytest.fixture(scope="module")
def adapted_run(rows, base, tmp_path_factory):
    """One finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    said: list[str] = []
    specs = [*MODES["lora"], "ia3", "norm"]
    run = fit(ATTENTION, *rows, folder, SETTINGS, weights=base, adapters=specs, told=said.append)
    return folder, run, said


def pretrained(base):
    model = build(ATTENTION, seed=0)
    load_weights(model, base)
    return model.eval()


def test_adapters_and_heads_move_and_nothing_else(adapted_run, base):
    _, run, said = adapted_run
    before = pretrained(base).state_dict()
    assert isinstance(run.model, Adapted)
    after = run.model.base.state_dict()
    assert list(after) == list(before)
    for name, value in after.items():
        if name.startswith("activity.") and value.is_floating_point():
            continue
        assert torch.equal(value, before[name]), f"{name} moved, or its statistics"
    assert any(not torch.equal(after[n], before[n]) for n in after if n.startswith("activity."))
    start = dict(agblocks.adapt(pretrained(base), run.resolved.adapters, seed=SETTINGS.seed).bank.named_parameters())
    for name, module in run.model.bank.named_modules():
        if isinstance(module, agblocks.adapters.Adapter):
            own = {f"{name}.{n}": p for n, p in module.named_parameters()}
            assert any(not torch.equal(p, start[n]) for n, p in own.items()), f"{name} did not move"
    assert run.settings.tune == "head"
    assert "tensors loaded" in said[0] and "parameters train" in said[1]


def test_the_folder_is_enough_to_predict(adapted_run, rows):
    folder, run, _ = adapted_run
    again = load_run(folder)
    assert again.resolved.adapters == run.resolved.adapters
    table, _ = rows
    assert np.array_equal(predict(again, table), predict(run, table))
    (table_file := folder.parent / "some.tsv").write_text("sequence\n" + "\n".join(table.sequences[:3]) + "\n")
    result = CliRunner().invoke(app(), ["predict", str(folder), str(table_file), "-o", str(folder.parent / "out.tsv")])
    assert result.exit_code == 0, result.output
    said = [float(line.split("\t")[-1]) for line in (folder.parent / "out.tsv").read_text().splitlines()[1:]]
    assert said == pytest.approx(predict(run, table)[:3, 0], rel=1e-5)
    with_them, without = predict(run, table), None
    with run.model.bank.disabled():
        without = predict(run, table)
    assert not np.allclose(with_them, without, rtol=1e-4)


def test_the_adapter_alone_goes_on_the_same_weights(adapted_run, base):
    folder, run, _ = adapted_run
    x = torch.randn(3, 4, 48)
    alone = load_adapter(pretrained(base), folder / "adapters" / "0.safetensors").eval()
    assert torch.equal(alone(dna=x)["activity"], run.model(dna=x)["activity"])
    assert (folder / "adapters" / "0.safetensors").stat().st_size < (folder / FILE).stat().st_size
    with pytest.raises(AgblocksError, match="weights"):
        load_adapter(build(ATTENTION, seed=3), folder / "adapters" / "0.safetensors")


def test_what_the_run_says_of_them(adapted_run):
    _, run, _ = adapted_run
    said = run.data["adapters"]
    assert said["specs"] == [str(spec) for spec in run.resolved.adapters]
    assert said["digest"] == run.resolved.adapters_digest
    assert said["parameters"] == run.model.bank.count()
    heads = sum(p.numel() for p in run.model.base.activity.parameters())
    assert run.data["parameters"]["trained"] == said["parameters"] + heads
    assert run.resolved.recipe["adapters"] == [spec.to_dict() for spec in run.resolved.adapters], "every default said"


def test_a_model_takes_the_base_of_such_a_run(adapted_run):
    folder, run, _ = adapted_run
    model = build(ATTENTION, seed=5)
    report = load_weights(model, folder)
    assert "the base alone, without its adapters" in report.assumed
    for name, value in run.model.base.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [2, 5])
def test_resuming_gives_the_same_files(rows, base, tmp_path, monkeypatch, at):
    options = {"weights": base, "adapters": ["lora:rank=2,dropout=0.1", "houlsby:latent=4"]}
    fit(ATTENTION, *rows, tmp_path / "whole", SETTINGS, **options)
    begin, count = Fitting.on_train_batch_start, [0]

    def counted(self, batch, batch_idx):
        count[0] += 1
        if count[0] == at:
            raise Interrupted
        begin(self, batch, batch_idx)

    monkeypatch.setattr(Fitting, "on_train_batch_start", counted)
    with pytest.raises(Interrupted):
        fit(ATTENTION, *rows, tmp_path / "run", SETTINGS, **options)
    fit(ATTENTION, *rows, tmp_path / "run", SETTINGS, resume=True, **options)
    for name in (FILE, "adapters/0.safetensors", "members/0.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(RunError, match="adapters was"):
        fit(ATTENTION, *rows, tmp_path / "run", SETTINGS, resume=True, weights=base, adapters=["lora:rank=3"])


def test_a_recipes_own_list(rows, base, tmp_path):
    recipe = {**ATTENTION, "adapters": [LORA]}
    own = fit(recipe, *rows, tmp_path / "own", replace(SETTINGS, epochs=1), weights=base)
    assert own.resolved.adapters == (AdapterSpec("lora", role=["attn.q", "attn.v"], rank=2),)
    other = fit(recipe, *rows, tmp_path / "other", replace(SETTINGS, epochs=1), weights=base, adapters=["ia3"])
    assert [spec.kind for spec in other.resolved.adapters] == ["ia3"]
    none = fit(recipe, *rows, tmp_path / "none", replace(SETTINGS, epochs=1), weights=base, adapters=[])
    assert (none.resolved.adapters, none.settings.tune) == ((), "full")
    assert not (tmp_path / "none" / "adapters").exists()
    assert "adapters" not in none.data


SUBSETS = [names for many in range(1, 5) for names in combinations(MODES, many)]


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_any_modes_train_together(rows, names):
    """Of every kind everything wants a gradient, and gets one that is not zero."""
    from agblocks.training.adapting import adapted, tuned, with_adapters
    from agblocks.training.wiring import wire

    specs = [spec for name in names for spec in MODES[name]]
    resolved = with_adapters(agblocks.resolve(ATTENTION), specs)
    settings = tuned(replace(SETTINGS, epochs=1), resolved)
    model = adapted(build(resolved, seed=1), settings)
    module = Fitting(model, wire(resolved, ["activity"]), settings, 4, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    batch = {
        "inputs": {"dna": torch.randn(8, 4, 48)}, "targets": {"activity": torch.randn(8, 1)}, "index": torch.arange(8)
    }  # fmt: skip
    module.train()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):  # the second step reaches what the first one left behind a zero
        optimizer.zero_grad()
        module._loss(model, batch, model.loss_outputs)[0].backward()
        optimizer.step()
    kinds = {spec.kind for spec in resolved.adapters}
    for kind in kinds:
        for adapter in model.bank.adapters("default"):
            if adapter.kind.name == kind:
                names_of = [f"bank.{n}" for n, m in model.bank.named_modules() if m is adapter]
                moved = [n for n, p in model.named_parameters() if n.startswith(f"{names_of[0]}.") and
                         not torch.equal(p, start[n])]  # fmt: skip
                assert moved, f"{kind} on {adapter.path}"
    still = [n for n, p in model.named_parameters() if n.startswith("base.") and not n.startswith("base.activity.")]
    assert still and all(torch.equal(model.get_parameter(n), start[n]) for n in still)


def test_lora_and_locon_through_fit(rows, base, tmp_path):
    run = fit(ATTENTION, *rows, tmp_path / "run", SETTINGS, weights=base, adapters=[*MODES["lora"], *MODES["locon"]])
    assert {row["kind"] for row in run.model.bank.report()} == {"lora", "locon"}
    merged = run.model.merged()
    x = torch.randn(2, 4, 48)
    assert torch.allclose(merged(dna=x)["activity"], run.model(dna=x)["activity"], atol=1e-5)


def test_more_of_the_base_can_train_beside_them(rows, base, tmp_path):
    run = fit(
        ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, tune="last:1", unfreeze="1=stem"), weights=base,
        adapters=["lora:rank=2,layers=0:2"],
    )  # fmt: skip
    before = pretrained(base).state_dict()
    moved = {n.partition(".")[0] + "." + n.split(".")[1] for n, v in run.model.base.state_dict().items()
             if not torch.equal(v, before[n])}  # fmt: skip
    assert "tower.layer2" in moved and "tower.layer1" not in moved
    assert any(name.startswith("stem.") for name in moved)
    alone = load_adapter(pretrained(base), tmp_path / "run" / "adapters" / "0.safetensors").eval()
    x = torch.randn(3, 4, 48)
    assert torch.equal(alone(dna=x)["activity"], run.model(dna=x)["activity"]), "all that trained is in the file"


def test_members_of_an_ensemble_have_files_of_their_own(rows, base, tmp_path):
    run = fit(
        ATTENTION,
        *rows,
        tmp_path / "run",
        replace(SETTINGS, epochs=1, ensemble=2),
        weights=base,
        adapters=["lora:rank=2"],
    )
    files = sorted((tmp_path / "run" / "adapters").iterdir())
    x = torch.randn(3, 4, 48)
    for file, model in zip(files, load_run(tmp_path / "run").models, strict=True):
        alone = load_adapter(pretrained(base), file).eval()
        assert torch.equal(alone(dna=x)["activity"], model(dna=x)["activity"])
    first, second = (dict(model.bank.named_parameters()) for model in run.models)
    assert any(not torch.equal(first[n], second[n]) for n in first)
    fit(ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, epochs=1), weights=base, overwrite=True)
    assert not (tmp_path / "run" / "adapters").exists()


def test_lora_plus_trains_b_faster():
    from agblocks.training.adapting import adapted, tuned, with_adapters

    resolved = with_adapters(agblocks.resolve(ATTENTION), ["lora:rank=2,lr_ratio=16"])
    settings = tuned(SETTINGS, resolved)
    model = adapted(build(resolved, seed=1), settings)
    scales = {group["lr_scale"] for group in groups_of(model, settings)}
    assert scales == {1.0, 16.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tune": "full"}, "tune=full trains everything, and adapters are for a frozen base"),
        ({"tune": "head", "unfreeze": "1=full"}, "adapters are for a frozen base"),
    ],
)
def test_everything_beside_adapters_is_refused(rows, base, tmp_path, change, message):
    with pytest.raises(RunError, match=message):
        fit(ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, **change), weights=base, adapters=["ia3"])
    assert not (tmp_path / "run").exists()


def test_targets_that_are_not_there(rows, base, tmp_path):
    with pytest.raises(RunError, match=r"adapters of 'attention': lora: role 'conv.mian' matches no module"):
        fit(ATTENTION, *rows, tmp_path / "run", SETTINGS, weights=base, adapters=["lora:role=conv.mian"])
    assert not (tmp_path / "run").exists()


def test_without_weights_it_is_said(rows, tmp_path):
    said: list[str] = []
    fit(ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, epochs=1), adapters=["ia3"], told=said.append)
    assert said[0] == "adapters beside weights that are as drawn: --weights names what they should adapt"


def test_settings_without_tune():
    assert Settings().tune == ""
    assert Settings().tuning.is_full
    old = {key: value for key, value in Settings().to_dict().items() if key != "tune"}
    assert Settings.from_dict(old) == Settings(tune="full"), "which is what runs did then"


def test_the_command(rows, base, tmp_path):
    table, _ = rows
    data = tmp_path / "rows.tsv"
    cells = zip(table.sequences, table.targets[:, 0], table.fold, strict=True)
    data.write_text("sequence\tactivity\tfold\n" + "".join(f"{s}\t{y}\t{f}\n" for s, y, f in cells))
    (tmp_path / "mine.yaml").write_text(json.dumps(ATTENTION))
    command = ["fit", str(tmp_path / "mine.yaml"), "--data", str(data), "--sequence", "sequence", "--targets", "activity",
               "--fold", "fold", "-o", str(tmp_path / "run"), "--weights", str(base), "--epochs", "1", "--patience", "0",
               "--device", "cpu", "--adapter", "lora:role=attn.q,rank=2", "--adapter", "bitfit"]  # fmt: skip
    result = CliRunner().invoke(app(), command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "parameters train" in result.output
    run = load_run(tmp_path / "run")
    assert [spec.kind for spec in run.resolved.adapters] == ["lora", "bitfit"]
    with pytest.raises(RunError, match="tune=full"):
        CliRunner().invoke(app(), [*command, "--tune", "full", "--overwrite"], catch_exceptions=False)
    assert CliRunner().invoke(app(), ["evaluate", str(tmp_path / "run")]).exit_code == 0
    folds = ["crossval", *command[1:8], "--fold", "fold", "-o", str(tmp_path / "cv"), "--weights", str(base), "--epochs", "1",
             "--patience", "0", "--device", "cpu", "--kmer", "0", "--only", "0", "--adapter", "ia3"]  # fmt: skip
    result = CliRunner().invoke(app(), folds, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert isinstance(load_run(tmp_path / "cv" / "fold-0").model, Adapted)


def test_a_run_whose_adapters_were_changed_is_refused(adapted_run, tmp_path, monkeypatch):
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder, _, _ = adapted_run
    with safe_open(folder / FILE, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    own = [name for name in tensors if name.startswith("0/adapters/")]
    assert len(own) == sum(1 for _ in load_run(folder).model.bank.parameters())
    for changed, message in (
        ({own[0]: tensors[own[0]] + 1}, "the weights are not what was written"),
        ({own[0]: None}, "the weights are not what was written"),
    ):
        now = {name: value for name, value in {**tensors, **changed}.items() if value is not None}
        save_file(now, tmp_path / FILE, metadata)
        with pytest.raises(RunError, match=message):
            load_run(tmp_path)
        monkeypatch.setattr(
            "agblocks.training.run.weights_sum", lambda _: json.loads(metadata["agblocks-run"])["weights_sha256"]
        )
        if len(now) < len(tensors):
            with pytest.raises(RunError, match=f"tensor '{own[0]}' is missing"):
                load_run(tmp_path)
        monkeypatch.undo()


def test_one_spec_need_be_no_list(rows, base, tmp_path):
    run = fit(ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, epochs=1), weights=base, adapters="lora:rank=2")
    assert [spec.kind for spec in run.resolved.adapters] == ["lora"]


NEEDS = {"tower_prefix": ":glob=tower.layer*"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_goes_through_a_run(rows, base, tmp_path, kind):
    """Trained with a moving average, stored, and loaded again: in the run, and alone on the same weights."""
    run = fit(
        ATTENTION, *rows, tmp_path / "run", replace(SETTINGS, epochs=1), weights=base,
        adapters=[kind + NEEDS.get(kind, "")],
    )  # fmt: skip
    x = torch.nn.functional.one_hot(torch.randint(0, 4, (3, 48)), 4).float().transpose(1, 2)
    alone = load_adapter(pretrained(base), tmp_path / "run" / "adapters" / "0.safetensors").eval()
    made = run.model(dna=x)["activity"]
    assert torch.equal(alone(dna=x)["activity"], made)
    with run.model.bank.disabled():
        assert not torch.equal(run.model(dna=x)["activity"], made)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_adapters_train_in_half_precision(rows, base, tmp_path, precision):
    settings = replace(SETTINGS, epochs=1, precision=precision)
    run = fit(ATTENTION, *rows, tmp_path / "run", settings, weights=base, adapters=["lora:rank=2", "norm"])
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert np.isfinite(run.metrics["test"][0]["pearson"])
