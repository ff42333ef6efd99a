"""A transfer as data: what it says, where it is wrong, what it makes of settings, and what a run keeps of it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import QUICK, SMALL
from tune_helpers import LAYERED, THREE

from agblocks import AdapterSpec, RecipeError, resolve
from agblocks.cli import main
from agblocks.training import RunError, Settings, Transfer, TransferError, Unfreeze, fit, load_run
from agblocks.training.fit import said_once
from agblocks.training.run import FILE
from agblocks.training.tuning.loads import Load
from agblocks.training.tuning.rates import as_rates, rates_text
from agblocks.training.tuning.text import read_transfer_file
from agblocks.training.tuning.unfreeze import as_steps

# As data

term = st.sampled_from(
    ["head", "last:2", "from:encoder.stage2", "to:encoder.stage3", "tower.**", "**.bias", "encoder.stage[1-3]"]
)
some = st.lists(term, min_size=1, max_size=3, unique=True).map(tuple)
factor = st.floats(1e-6, 1e6, allow_nan=False)
plateau = st.builds(
    Unfreeze, some, plateau=st.one_of(st.just(True), st.integers(1, 9)), latest=st.one_of(st.none(), st.integers(30, 99)),
    lr=factor,
)  # fmt: skip


@st.composite
def steps(draw):
    """A schedule whose steps come one after the other."""
    found = []
    for _ in range(draw(st.integers(0, 2))):
        found += [Unfreeze(draw(some), after=n) for n in sorted(draw(st.sets(st.integers(1, 29), max_size=2)))]
        found.append(draw(plateau))
    return tuple(found)


@st.composite
def transfers(draw):
    later = draw(steps())
    base = draw(st.sampled_from(["tune", "freeze", "none"] if not later else ["tune", "freeze"]))
    load = st.builds(Load, st.sampled_from(["runs/a", "owner/name", "w.pt"]), st.lists(st.just("encoder"), max_size=1))
    return Transfer(
        weights=draw(st.lists(load, max_size=2)),
        reinit=draw(st.one_of(st.just(()), some)),
        unfreeze=later,
        rates=draw(st.dictionaries(some.map("+".join), factor, max_size=3)),
        adapters=draw(st.sampled_from([None, (), ("lora:rank=2",)])) if base != "none" else None,
        **({base: draw(some)} if base != "none" else {}),
    )


@given(transfers())
def test_it_is_data(transfer):
    values = json.loads(json.dumps(transfer.to_dict(), sort_keys=True))
    again = Transfer.from_dict(values)
    assert again == transfer and hash(again) == hash(transfer) and again.digest == transfer.digest
    assert pickle.loads(pickle.dumps(transfer)) == transfer
    assert Transfer(**values) == transfer
    settings = transfer.settings(Settings(epochs=1000))
    assert settings.redrawn == transfer.reinit and settings.factors == transfer.rates
    assert settings.tuning.later == transfer.unfreeze
    assert not transfer.what or settings.tuning.what == transfer.what
    # What fit makes of its arguments is the same thing.
    adapters = [AdapterSpec.parse(str(spec)) for spec in transfer.adapters or ()]
    other = Transfer.of(settings, transfer.weights, adapters)
    assert other.settings(Settings(epochs=1000)) == settings
    assert other.weights == transfer.weights
    with pytest.raises(AttributeError):
        transfer.tune = ("head",)


@given(steps())
def test_a_schedule_is_text(later):
    text = ",".join(map(str, later))
    assert as_steps(text) == later
    assert as_steps([step.to_dict() for step in later]) == later
    assert as_steps([str(step) for step in later]) == later


@given(st.dictionaries(some, factor, max_size=3))
def test_rates_are_text(rates):
    found = as_rates({"+".join(terms): value for terms, value in rates.items()})
    assert dict(found) == rates
    assert as_rates(rates_text(found)) == found == as_rates([[list(t), v] for t, v in reversed(rates.items())])


def test_order_of_rates_makes_no_difference_and_other_orders_do():
    one, other = (Transfer(rates=r) for r in ({"encoder": 0.1, "head": 2}, {"head": 2.0, "encoder": 0.1}))
    assert one == other and one.digest == other.digest
    assert Transfer(weights=["a", "b"]).digest != Transfer(weights=["b", "a"]).digest
    assert Transfer(weights="a") == Transfer(weights=["a"]) == Transfer(weights=[{"from": "a"}])
    assert Transfer(weights="a").digest != Transfer(weights="a", tune="head").digest != Transfer(tune="head").digest


def test_short_forms():
    long = Transfer(
        weights=[{"from": "runs/a", "into": ["encoder"]}], reinit=["from:encoder.stage2"], freeze=["to:encoder.stage1"],
        unfreeze=[{"plateau": 5, "latest": 20, "train": ["full"], "lr": 0.1}], rates={"encoder.**": 0.5},
        adapters=[{"adapter": "lora", "rank": 2}],
    )  # fmt: skip
    short = Transfer(
        weights={"from": "runs/a", "into": "encoder"}, reinit="from:encoder.stage2", freeze="to:encoder.stage1",
        unfreeze="plateau:5:20x0.1=full", rates="encoder.**=0.5", adapters="lora:rank=2",
    )  # fmt: skip
    assert long == short
    assert long.what == ("not:to:encoder.stage1",)
    assert Transfer(freeze="full").what == ("not:**",)
    assert Transfer.from_dict({"weights": None, "tune": "head"}) == Transfer(tune="head")


# What is wrong


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weigths": "a"}, "transfer.weigths: there is no such key; did you mean weights"),
        ({"weights": 3}, "transfer.weights: 3; wanted a file, a run folder"),
        ({"weights": ["a", ""]}, r"transfer.weights\[1\]: ''; wanted a file"),
        ({"weights": [{"form": "a"}]}, r"transfer.weights\[0\]: there is no 'form'; did you mean from"),
        ({"weights": {"into": ["a"]}}, "transfer.weights: from is missing"),
        ({"weights": {"from": "a", "into": 3}}, "transfer.weights: into 3; wanted names of nodes"),
        ({"weights": {"from": "a", "revision": 3}}, "transfer.weights: revision 3; wanted a text"),
        ({"tune": ["head", "a b"]}, r"transfer.tune\[1\]: 'a b'; wanted full, head"),
        ({"tune": {"a": 1}}, "transfer.tune: {'a': 1}; wanted full, head"),
        ({"tune": "full+head"}, "transfer.tune: 'full.head'; wanted different terms"),
        ({"reinit": "not:full"}, "transfer.reinit: 'not:full'; wanted"),
        ({"freeze": "head", "tune": "head"}, "transfer.freeze: tune and freeze both"),
        ({"freeze": ["head", "not:encoder"]}, r"transfer.freeze\[1\]: not:encoder; wanted tune: encoder"),
        ({"tune": "full", "unfreeze": "3=encoder"}, "transfer.unfreeze: everything trains from the start"),
        ({"tune": "head", "unfreeze": [{"after": 3, "train": "a"}, {"train": "b"}]},
         r"transfer.unfreeze\[1\]: after or plateau, not neither"),
        ({"tune": "head", "unfreeze": [{"after": 3, "plateau": 2, "train": "a"}]},
         r"transfer.unfreeze\[0\]: after or plateau, not both"),
        ({"tune": "head", "unfreeze": [{"after": 3}]}, r"transfer.unfreeze\[0\]: train is missing"),
        ({"tune": "head", "unfreeze": [{"plateu": 3, "train": "a"}]}, r"unfreeze\[0\]: there is no 'plateu'; did you mean plateau"),
        ({"tune": "head", "unfreeze": [{"plateau": 0, "train": "a"}]}, r"unfreeze\[0\]: plateau 0; wanted true"),
        ({"tune": "head", "unfreeze": [{"plateau": False, "train": "a"}]}, r"unfreeze\[0\]: plateau False; wanted true"),
        ({"tune": "head", "unfreeze": [{"plateau": 2, "latest": 0, "train": "a"}]}, r"unfreeze\[0\]: latest 0"),
        ({"tune": "head", "unfreeze": [{"plateau": 2, "lr": 0, "train": "a"}]}, r"unfreeze\[0\]: lr 0; wanted"),
        ({"tune": "head", "unfreeze": [{"after": 2, "lr": 0.1, "train": "a"}]}, r"unfreeze\[0\]: latest and lr are of a plateau"),
        ({"tune": "head", "unfreeze": [3]}, r"transfer.unfreeze\[0\]: 3; wanted epochs=what"),
        ({"tune": "head", "unfreeze": "plateau:x=a"}, "transfer.unfreeze: 'plateau:x'; wanted epochs=what"),
        ({"tune": "head", "unfreeze": "plateaux.=a"}, "transfer.unfreeze: 'plateaux.': '.' is no number"),
        ({"tune": "head", "unfreeze": "5=a,plateau:9:4=b"}, "plateau:9:4: at the latest after 4 epochs, but a part is to join"),
        ({"rates": {"encoder": -1, "head": "x"}}, r"transfer.rates.encoder: -1; wanted a factor.*transfer.rates.head: 'x'"),
        ({"rates": "encoder"}, "transfer.rates: 'encoder'; wanted what=factor"),
        ({"rates": "a=1,a=2"}, "transfer.rates: a is said twice"),
        ({"adapters": ["lora", "lorra"]}, r"transfer.adapters\[1\]: .*'lorra'; did you mean lora"),
        ({"adapters": 3}, "transfer.adapters: 3; wanted a list of adapters"),
    ],
)  # fmt: skip
def test_wrong_transfers_say_where(values, message):
    with pytest.raises(TransferError, match=message) as raised:
        Transfer.from_dict(values)
    assert pickle.loads(pickle.dumps(raised.value)).wrong == raised.value.wrong


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(TransferError) as raised:
        Transfer(weights=3, tune="a b", reinit="c d", rates={"x": 0})
    assert [path for path, _ in raised.value.wrong] == [("weights",), ("reinit",), ("tune",), ("rates", "x")]
    with pytest.raises(TransferError, match="transfer: 'a'; wanted a mapping"):
        Transfer.from_dict("a")


def test_names_are_checked_without_memory():
    recipe = resolve(LAYERED)
    Transfer(reinit="from:tower.layer2", tune="head", unfreeze="plateau=last:1,3=tower.*.mlp", rates="tower=2").check(
        recipe
    )
    with pytest.raises(TransferError) as raised:
        Transfer(
            reinit=["from:tower.layer4", "encoder.stage1"], tune="hed", unfreeze=[{"after": 1, "train": ["tower", "towr"]}],
            rates={"encodr+early": 2},
        ).check(recipe)  # fmt: skip
    assert [path for path, _ in raised.value.wrong] == [
        ("reinit", 0), ("tune",), ("unfreeze", 0), ("rates", "encodr+early")
    ]  # fmt: skip
    said = str(raised.value)
    for near in ("did you mean tower.layer", "did you mean head", "did you mean tower", "did you mean encoder"):
        assert near in said
    with pytest.raises(TransferError, match=r"transfer.unfreeze\[1\]: 3=early: all of it trains before that"):
        Transfer(tune="head", unfreeze="1=tower,3=early").check(recipe)
    with pytest.raises(TransferError, match="transfer.freeze: nothing trains"):
        Transfer(freeze="full").check(recipe)
    Transfer(freeze="full", adapters="lora:rank=2").check(recipe)
    Transfer(freeze="full", unfreeze="1=head").check(recipe)
    with pytest.raises(TransferError, match=r"transfer.rates: .*tower.layer1=1.*tower.layer1.\*\*=2.* both name"):
        Transfer(rates={"tower.layer1": 1, "tower.layer1.**": 2}).check(recipe)


WRONG = """\
transfer:
  weights:
    - {from: runs/a, into: [encoder]}
    - {form: runs/b}
  reinit: [from:encoder.stage2, a b]
  unfreeze:
    - {after: 3, train: encoder}
    - {plateau: none, train: full}
  rates:
    encoder.**: fast
  tunee: head
"""


def test_a_file_that_is_wrong_is_told_with_carets(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text(WRONG)
    with pytest.raises(RecipeError, match=r"t.yaml:11:3: transfer.tunee: there is no such key; did you mean tune"):
        read_transfer_file(file)
    file.write_text(WRONG.replace("tunee", "tune"))
    with pytest.raises(RecipeError) as raised:
        read_transfer_file(file)
    places = [(p.mark.line, p.mark.column, p.path) for p in raised.value.problems]
    assert places == [
        (4, 7, "transfer.weights[1]"), (5, 33, "transfer.reinit[1]"), (8, 7, "transfer.unfreeze[1]"),
        (10, 17, "transfer.rates.encoder.**"),
    ]  # fmt: skip
    caret = str(raised.value).splitlines()[2]
    assert caret.endswith("^") and "{form: runs/b}"[0] == str(raised.value).splitlines()[1][len(caret) - 1]
    file.write_text("reinit: from:encoder.stag2\nrates: {encoder.stage2: 0.1}\n")
    with pytest.raises(RecipeError, match=r"t.yaml:1:9: transfer.reinit: .*did you mean encoder.stage2"):
        read_transfer_file(file, resolve(THREE))
    file.write_text("reinit: from:encoder.stage2\nrates: {encoder.stage2: 0.1}\n")
    assert read_transfer_file(file, resolve(THREE)) == Transfer(
        reinit="from:encoder.stage2", rates="encoder.stage2=0.1"
    )


def test_nothing_is_said_twice():
    settings = Settings(tune="head", rates="encoder=2.0")
    assert Transfer(tune="head", rates={"encoder": 2}).settings(settings) == settings
    with pytest.raises(RunError, match="tune is said twice: 'head' in the settings, 'last:1' in transfer"):
        Transfer(tune="last:1").settings(settings)
    with pytest.raises(RunError, match="weights are said twice"):
        said_once({"weights": "a"}, settings, weights="a")
    with pytest.raises(RunError, match="adapters are said twice"):
        said_once({"adapters": ["lora"]}, settings, adapters=["lora"])
    with pytest.raises(RunError, match="weights_into names nodes, but there are no weights"):
        said_once({"weights": "a"}, settings, into="encoder")
    with pytest.raises(RunError, match="a state dict cannot be written down"):
        Transfer(weights={"a": torch.zeros(1)}).to_dict()
    found = said_once({"weights": "a", "adapters": []}, settings)
    assert found == (settings, (Load("a"),), ())


# In a run


HEADS = {
    **SMALL,
    "name": "renamed",
    "heads": {"other": {"block": "head.scalar", "in": "stem", "args": {"pool": "max", "hidden": [5]}}},
}


def test_a_transfer_is_the_arguments_of_fit(run_folder, measured, tmp_path):
    settings = replace(QUICK, epochs=2)
    section = {"weights": [{"from": str(run_folder), "into": ["stem"]}], "reinit": ["stem.norm"], "tune": ["head"],
               "unfreeze": [{"after": 1, "train": ["stem"]}], "rates": {"stem": 0.1}}  # fmt: skip
    one = fit(HEADS, *measured, tmp_path / "one", settings, transfer=section)
    said = replace(settings, tune="head", unfreeze="1=stem", reinit="stem.norm", rates="stem=0.1")
    fit(HEADS, *measured, tmp_path / "other", said, weights=run_folder, weights_into="stem")
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "other" / FILE).read_bytes()
    assert (tmp_path / "one/started.json").read_text() == (tmp_path / "other/started.json").read_text()
    stored = load_run(tmp_path / "one").data["transfer"]
    assert len(stored.pop("groups")) == 64
    assert {**Transfer.from_dict(section).to_dict(), "digest": Transfer.from_dict(section).digest} == stored
    assert one.settings == said
    # The same again, in either way, is a resume; another is refused.
    for transfer in (section, {**section, "rates": "stem=0.1"}):
        fit(HEADS, *measured, tmp_path / "one", settings, transfer=transfer, resume=True)
    for change, message in (
        ({"reinit": ["stem"]}, "settings.reinit was stem.norm, is stem"),
        ({"rates": {"stem": 0.2}}, "settings.rates was stem=0.1, is stem=0.2"),
        ({"unfreeze": "plateau=stem"}, "settings.unfreeze was 1=stem, is plateau=stem"),
        ({"freeze": "stem", "tune": None}, "settings.tune was head, is not:stem"),
        ({"weights": None}, "weights was .*, is None"),
    ):
        patience = 3 if "unfreeze" in change else 0
        with pytest.raises(RunError, match=message):
            fit(HEADS, *measured, tmp_path / "one", replace(settings, patience=patience), transfer={**section, **change},
                resume=True)  # fmt: skip


def test_a_run_without_any_says_nothing_of_it(run_folder):
    assert "transfer" not in load_run(run_folder).data


def test_runs_of_before_resume(run_folder, measured, tmp_path):
    """Their settings have neither reinit nor rates."""
    import shutil

    old = tmp_path / "old"
    shutil.copytree(run_folder, old)
    held = json.loads((old / "started.json").read_text())
    assert held["settings"].pop("reinit") == held["settings"].pop("rates") == ""
    (old / "started.json").write_text(json.dumps(held))
    fit(SMALL, *measured, old, QUICK, resume=True)
    with pytest.raises(RunError, match="settings.rates was , is stem=2"):
        fit(SMALL, *measured, old, replace(QUICK, rates="stem=2"), resume=True)


def test_names_are_told_with_their_path_before_a_folder_is_made(measured, tmp_path):
    with pytest.raises(TransferError, match=r"transfer.unfreeze\[0\]: .*did you mean stem"):
        fit(
            SMALL,
            *measured,
            tmp_path / "run",
            QUICK,
            transfer={"tune": "head", "unfreeze": [{"after": 1, "train": "stam"}]},
        )
    assert not (tmp_path / "run").exists()


def test_several_sources_each_over_the_last(run_folder, measured, tmp_path):
    other = tmp_path / "other"
    fit(SMALL, *measured, other, replace(QUICK, epochs=1, seed=11))
    started = {}
    fit(
        SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=1, lr=1e-9, ema=0.0, weight_decay=0.0),
        transfer={"weights": [str(other), {"from": str(run_folder), "into": ["activity"]}], "tune": "activity"},
        told=lambda text: started.setdefault(len(started), text),
    )  # fmt: skip
    found = load_run(tmp_path / "run").model.state_dict()
    first, second = (load_run(folder).model.state_dict() for folder in (other, run_folder))
    for name, value in found.items():
        torch.testing.assert_close(value, (first if name.startswith("stem") else second)[name], rtol=1e-5, atol=1e-6)
    table = started[2]
    assert [line.split()[2] for line in table.splitlines() if line.startswith("stem")] == ["other"]
    assert {line.split()[2] for line in table.splitlines() if line.startswith("activity")} == {"run"}
    record = load_run(tmp_path / "run").data["weights"]
    assert [source["source"].rpartition("/")[0] for source in record["sources"]] == [str(other), str(run_folder)]
    assert record["loaded"] == len(found) - ("stem.norm.num_batches_tracked" not in found)


def test_the_table_says_where_values_come_from(run_folder, measured, tmp_path):
    said = []
    fit(HEADS, *measured, tmp_path / "run", replace(QUICK, epochs=3, tune="head"), weights=run_folder, told=said.append,
        transfer={"reinit": "stem.norm", "unfreeze": "plateau:1:2x0.1=stem.conv"})  # fmt: skip
    report, table = said
    rows = {line.split("  ")[0]: line for line in table.splitlines()[1:-1]}
    assert "tensors loaded" in report
    assert table.splitlines()[0].split() == ["parameters", "from", "trains", "lr", "x", "decays"]
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert f"stem {8 * 4 * 7} run from plateau 1 1 yes" in lines
    assert "stem 16 drawn anew no" in lines
    assert "drawn" in rows["other"]
    assert any(
        line
        == "plateau 1: when an evaluation is no better or the stage had 2 epochs; from the best weights, optimiser anew, learning rate x 0.1"
        for line in lines
    )


def test_reinit_without_weights_is_said(measured, tmp_path):
    said = []
    fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=1, reinit="stem"), told=said.append)
    assert said == ["reinit stem: no weights are loaded, so all is drawn"]


def test_adapters_in_a_transfer(run_folder, measured, tmp_path):
    said = []
    run = fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=2), told=said.append,
              transfer={"weights": str(run_folder), "adapters": ["locon:role=conv.main,rank=2"], "freeze": "stem"})  # fmt: skip
    assert [spec.kind for spec in run.resolved.adapters] == ["locon"]
    assert run.settings.tune == "not:stem"
    base = load_run(run_folder).model.state_dict()
    assert all(torch.equal(v, base[n]) for n, v in run.model.base.state_dict().items() if n.startswith("stem"))
    row = next(line for line in said[-1].splitlines() if line.endswith("locon"))
    assert row.split()[0] == "stem" and " drawn " in row and " yes " in row
    assert run.data["transfer"]["adapters"][0]["adapter"] == "locon"


def test_the_command_line(run_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text(json.dumps(HEADS))
    section = tmp_path / "transfer.yaml"
    section.write_text(
        f"transfer:\n  weights: {run_folder}\n  reinit: stem.norm\n  tune: head\n"
        "  unfreeze:\n    - {plateau: 1, latest: 1, train: full, lr: 0.5}\n  rates: {stem.**: 0.5}\n"
    )

    def run(*words):
        base = ["agblocks", "fit", tmp_path / "mine.yaml", "--data", "simulated", "--epochs", 2, "--device", "cpu"]
        monkeypatch.setattr("sys.argv", [str(word) for word in (*base, *words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    code, said = run("-o", tmp_path / "one", "--transfer", section)
    assert not code, said.err
    assert "from plateau 1" in said.out and "drawn anew" in said.out
    code, said = run(
        "-o", tmp_path / "two", "--weights", run_folder, "--reinit", "stem.norm", "--tune", "head",
        "--unfreeze", "plateau:1:1x0.5=full", "--rates", "stem.**=0.5",
    )  # fmt: skip
    assert not code, said.err
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "two" / FILE).read_bytes()
    section.write_text(section.read_text().replace("head", "hed"))
    code, said = run("-o", tmp_path / "three", "--transfer", section)
    assert code == 2
    assert f"{section}:4:9: transfer.tune: hed: no name fits; did you mean head?\n     4 |   tune: hed\n" in said.err
    assert not (tmp_path / "three").exists()


def test_a_policy_of_plateaus_through_crossval(run_folder, measured, tmp_path):
    from agblocks.training import crossval

    table, _ = measured
    made_one = crossval(
        SMALL, table, tmp_path / "cv", replace(QUICK, epochs=2), only=["0"], kmer=0,
        transfer={"weights": str(run_folder), "tune": "head", "rates": "head=0.5"},
    )  # fmt: skip
    assert len(made_one.folds) == 1
    stored = load_run(tmp_path / "cv" / "fold-0").data["transfer"]
    assert stored["rates"] == {"head": 0.5} and stored["tune"] == ["head"]
