from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import polars as pl
import pytest

from agblocks.cli import main
from agblocks.data import DataError, Table, read_sequences, reverse_complement
from agblocks.training import RunError, evaluate, load_run, predict, write_predictions
from agblocks.training.run import FILE


def bare(sequences):
    n = len(sequences)
    return Table(tuple(sequences), np.zeros((n, 0), np.float32), (), tuple(f"s{i}" for i in range(n)))


def drawn(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), n)) for n in lengths]


def agblocks(monkeypatch, capsys, *words):
    """Run the command line in this process: exit status, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["agblocks", *map(str, words)])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    told = capsys.readouterr()
    return status, told.out, told.err


def test_any_lengths_in_any_order(run_folder):
    run = load_run(run_folder)
    sequences = drawn([20, 35, 20, 50, 35, 7, 100])
    together = predict(run, bare(sequences))
    alone = np.concatenate([predict(run, bare([s])) for s in sequences])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    back = predict(run, bare(sequences[::-1]))
    np.testing.assert_allclose(together, back[::-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(predict(run, bare(sequences), [4, 1]), predict(run, bare(sequences))[[4, 1]])


def test_both_strands_are_the_mean_of_the_two(run_folder):
    run = load_run(run_folder)
    sequences = drawn([30, 41, 30])
    forward = predict(run, bare(sequences), strands="one")
    backward = predict(run, bare([reverse_complement(s) for s in sequences]), strands="one")
    both = predict(run, bare(sequences), strands="both")
    np.testing.assert_allclose(both, (forward + backward) / 2, rtol=1e-5, atol=1e-6)
    assert not np.allclose(forward, backward)


def test_an_ensemble_is_the_mean_of_its_members(run_folder, measured, tmp_path):
    from dataclasses import replace

    from training_helpers import QUICK, SMALL

    from agblocks.training import fit

    run = fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=1, ensemble=2))
    assert len(run.models) == 2
    table = bare(drawn([30, 30]))
    members = [predict(replace(run, models=(m,)), table) for m in run.models]
    np.testing.assert_allclose(predict(run, table), np.mean(members, axis=0), rtol=1e-6)


def test_predictions_are_in_units_of_the_measurements(run_folder, measured):
    table, splits = measured
    made = evaluate(load_run(run_folder), table, splits.test, bootstrap=0)
    assert abs(made.predicted.mean() - made.observed.mean()) < 2 * made.observed.std()
    with pytest.raises(RunError, match="predicts 'activity', the table has no such target"):
        evaluate(load_run(run_folder), bare(drawn([30])))


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_tables_are_written_whole(run_folder, tmp_path, suffix):
    table = bare(drawn([30, 30, 25]))
    predicted = predict(load_run(run_folder), table)
    path = tmp_path / f"out{suffix}"
    write_predictions(path, table, range(3), predicted, ("activity",))
    frame = (
        pl.read_parquet(path)
        if suffix == ".parquet"
        else pl.read_csv(path, separator="\t" if suffix == ".tsv" else ",")
    )
    assert frame.columns == ["id", "sequence", "predicted_activity"]
    np.testing.assert_allclose(frame["predicted_activity"].to_numpy(), predicted[:, 0], rtol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_where_predictions_cannot_be_written(run_folder, tmp_path):
    table = bare(drawn([30]))
    with pytest.raises(RunError, match=r"found suffix '\.xlsx'"):
        write_predictions(tmp_path / "a.xlsx", table, [0], np.zeros((1, 1)), ("a",))
    with pytest.raises(RunError, match="cannot be written: No such file or directory"):
        write_predictions(tmp_path / "no" / "a.tsv", table, [0], np.zeros((1, 1)), ("a",))


def write_table(path, table, rows):
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(["name", "seq", "activity", "fold"])
        for i in rows:
            writer.writerow([table.ids[i], table.sequences[i], float(table.targets[i, 0]), table.fold[i]])
    return path


def test_the_commands_from_file_to_file(measured, tmp_path, monkeypatch, capsys):
    from training_helpers import SMALL

    table, _ = measured
    data = write_table(tmp_path / "mpra.tsv", table, range(len(table)))
    recipe = tmp_path / "small.yaml"
    recipe.write_text(json.dumps(SMALL))
    out = tmp_path / "run"
    words = ["fit", recipe, "activity.dropout=0.1", "--data", data, "--sequence", "seq", "--targets", "activity"]
    words += ["--fold", "fold", "--id", "name", "--epochs", 2, "--lr", 0.01, "-o", out, "--device", "cpu"]
    status, said, err = agblocks(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "test" in said
    assert "activity" in said
    status, said, err = agblocks(monkeypatch, capsys, *words)
    assert status == 2
    assert f"{out} holds a finished run" in err
    assert agblocks(monkeypatch, capsys, *words, "--resume")[0] == 0

    # its own test fold, from the file it was fitted to
    status, said, err = agblocks(monkeypatch, capsys, "evaluate", out, "-o", tmp_path / "scores")
    assert status == 0, err
    stored = json.loads((out / "metrics.json").read_text())["test"]
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"] == stored
    # other rows: those it has trained on are refused
    words = ["evaluate", out, "--data", data, "--sequence", "seq", "--id", "name"]
    status, said, err = agblocks(monkeypatch, capsys, *words)
    assert status == 2
    assert "has trained or validated on" in err
    status, said, err = agblocks(monkeypatch, capsys, *words, "--seen", "drop", "-o", tmp_path / "dropped")
    assert status == 0, err
    found = json.loads((tmp_path / "dropped" / "scores.json").read_text())["scores"]
    assert found[0]["n"] == stored[0]["n"]
    assert found[0]["pearson"] == pytest.approx(stored[0]["pearson"])

    # sequences of a FASTA file, by the model file alone, on another machine
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(out / FILE, moved)
    fasta = tmp_path / "designs.fa"
    fasta.write_text("".join(f">s{i} words\n{s}\n" for i, s in enumerate(drawn([33, 40, 21]))))
    wanted = predict(load_run(out), read_sequences(fasta))
    status, said, err = agblocks(monkeypatch, capsys, "predict", moved / FILE, fasta, "-o", tmp_path / "p.tsv")
    assert status == 0, err
    frame = pl.read_csv(tmp_path / "p.tsv", separator="\t")
    assert frame["id"].to_list() == ["s0", "s1", "s2"]
    np.testing.assert_allclose(frame["predicted_activity"].to_numpy(), wanted[:, 0], rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "tiny", "-o", "x", "--data", "nowhere"], "there is no file or data set 'nowhere'"),
        (["fit", "tiny", "-o", "x", "--data", "a.tsv"], "say which column holds the sequence and which the targets"),
        (["fit", "tiny", "-o", "x"], "no data: name files, or one of human_lentimpra_3k"),
        (["fit", "tiny", "-o", "x", "--data", "simulated", "--lr", "-1"], "lr is -1.0"),
        (["fit", "tiny", "-o", "x", "--data", "simulated", "--targets", "b"], "simulated has no target 'b'"),
        (["fit", "tiny", "-o", "x", "--data", "simulated", "--input", "a"], "wanted name=number"),
        (["fit", "tinny", "-o", "x", "--data", "simulated"], "there is no shipped recipe 'tinny'; did you mean tiny?"),
        (["evaluate", "nowhere"], "there is no finished run here"),
        (["predict", "nowhere", "a.fa", "-o", "p.tsv"], "a.fa: there is no such file"),
        (["demo", "--data", "other"], "wanted auto, human_lentimpra_3k or simulated"),
    ],
)
def test_what_is_wrong_ends_with_status_2(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = agblocks(monkeypatch, capsys, *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_sequences_that_do_not_fit_are_all_listed(run_folder):
    run = load_run(run_folder)
    with pytest.raises(DataError) as error:
        predict(run, bare(["ACGT" * 5, "ACGTT" * 5]), construct=type(run.construct)(left="A", length=21))
    assert "stated length" in str(error.value)
