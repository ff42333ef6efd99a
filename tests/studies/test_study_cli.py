"""`agblocks study`: what is printed, and the exit status."""

import pytest
from study_helpers import PROBES, TRANSFER, planned
from typer.testing import CliRunner

from agblocks.cli import app
from agblocks.studies import StudyError, WorkError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "probes.yaml"
    path.write_text(PROBES)
    return path


def call(*words):
    return CliRunner().invoke(app(), ["study", *map(str, words)])


def test_run_show_and_report(file, tmp_path):
    out = tmp_path / "out"
    shown = call("show", file, "vary.fold=['0']", "--cells").stdout
    assert (
        "5 cells: 4 probes in closed form, 1 ridge on k-mers" in shown
        and "tap=encoder.stage3 pool=peak fold=0" in shown
    )
    ran = call("run", file, "-o", out, "vary.fold=['0']", "--no-costs")
    assert ran.exit_code == 0 and "5 cells finished (0 before), 0 failed" in ran.stdout
    assert "5 finished, 0 failed, 0 to do" in call("show", file, "vary.fold=['0']", "-o", out).stdout
    again = call("run", file, "-o", out, "vary.fold=['0']", "--no-costs")
    assert again.exit_code == 0 and "5 cells finished (5 before), 0 failed" in again.stdout
    assert call("report", out).exit_code == 0 and (out / "report" / "index.html").is_file()


def test_a_failing_cell_is_an_exit_status(file, tmp_path, monkeypatch):
    from agblocks.studies.work import kmer

    def breaks(*args, **kwargs):
        raise OSError("no more space")

    monkeypatch.setattr(kmer, "fitted", breaks)
    ran = call("run", file, "-o", tmp_path / "out", "--no-costs")
    assert ran.exit_code == 1 and ran.stdout.count("failed: OSError: no more space") == 2
    monkeypatch.undo()
    assert call("run", file, "-o", tmp_path / "out", "--no-costs").exit_code == 1
    assert call("run", file, "-o", tmp_path / "out", "--no-costs", "--retry").exit_code == 0


def test_what_cannot_be_runs_nothing(file, tmp_path):
    for words, kind, said in (
        (("run", file, "-o", tmp_path / "out", "cell.recipe=tinny"), StudyError, "tinny"),
        (("run", file, "-o", tmp_path / "out", "--engine", "rey"), WorkError, "there is no engine 'rey'"),
        (
            ("run", file, "-o", tmp_path / "out", "--address", "auto"),
            WorkError,
            "the inline engine runs in this process",
        ),
        (
            ("show", "stage_transfr"),
            StudyError,
            "there is no shipped study 'stage_transfr'; did you mean stage_transfer",
        ),
    ):
        ran = call(*words)
        assert isinstance(ran.exception, kind) and said in str(ran.exception)
    assert not (tmp_path / "out").exists()


def test_models_that_start_from_models():
    """A chain of trainings: each comes before what starts from it, and none may have seen what is held out."""
    more = "pretrain.tuned={recipe: tiny, data: other, fold: '4', seed: 2, transfer: {weights: base}, training: {epochs: 1}}"
    made = planned(TRANSFER, more, "cell.transfer.weights=tuned", "controls=[]", "reference=null")
    (last,) = {need for cell in made.cells.values() if "keep" not in cell.given for need in cell.needs}
    (first,) = made.cells[last].needs
    assert list(made.cells)[:2] == [first, last]
    with pytest.raises(StudyError, match="sequences that are held out here"):
        planned(TRANSFER, more, "cell.transfer.weights=tuned", "pretrain.base.data=sim", "pretrain.base.fold='4'")
