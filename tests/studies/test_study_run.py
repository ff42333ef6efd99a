"""Cells are done once, whatever happens to the processes that do them."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import polars
import pytest
from study_helpers import PROBES, TRANSFER, planned

from agblocks.studies import StudyError, WorkError, load_study, plan
from agblocks.studies import run_study as run
from agblocks.studies.engines import Outcome, Queue, Task
from agblocks.studies.store import Store

run_study = partial(run, costs=False)  # measuring takes longer than all else here
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def results(out):
    """Everything a finished study says of its cells, times aside."""
    found = {}
    for file in sorted(Path(out).glob("cells/*/result.json")):
        result = json.loads(file.read_text())
        rows = polars.read_parquet(file.parent / "predictions.parquet")
        found[file.parent.name] = (result["scores"], result["chosen"], rows.to_dicts())
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    made = run_study(planned(), out)
    assert made.ok and made.before == 0, made.failed
    return out


def test_finished_cells_are_never_done_again(finished):
    before = {file: file.stat().st_mtime_ns for file in finished.glob("cells/*/*")}
    made = run_study(planned(), finished)
    assert made.ok and made.before == len(made.done) == len(planned().cells)
    assert {file: file.stat().st_mtime_ns for file in finished.glob("cells/*/*")} == before


def test_what_a_result_holds(finished):
    study = planned()
    for name in study.cells:
        result = json.loads((finished / "cells" / name / "result.json").read_text())
        rows = polars.read_parquet(finished / "cells" / name / "predictions.parquet")
        assert result["cell"] == name and result["rows"]["test"] == len(rows) and result["peak_mb"] > 0
        assert rows.columns == ["id", "observed_activity", "predicted_activity"]
        r = float(rows.select(polars.corr("observed_activity", "predicted_activity")).item())
        told = result["scores"]["test"][0]
        assert abs(told["pearson"] - r) < 1e-9 if told["pearson"] is not None else told["reason"]
        assert set(result["chosen"]["penalty"]) == {"activity"} and name in result["command"]
    assert Store(finished).result("0" * 16) is None


def test_a_changed_study_does_only_what_changed(finished, tmp_path):
    more = planned(PROBES, "vary.tap=[encoder.stage1, encoder.stage2, encoder.stage3]")
    known = set(planned().cells)
    left = [name for name in more.cells if not Store(finished).done(more.cells[name])]
    assert set(left) == set(more.cells) - known and len(left) == 4
    fewer = run_study(planned(PROBES, "vary.fold=['0']"), finished)
    assert fewer.ok and fewer.before == len(fewer.done)


class Dies:
    """An engine whose workers die before they can write anything."""

    def run(self, out, tasks, perform, told):
        for one in tasks:
            told(Outcome(one.id, failed=dict.fromkeys(one.ids, "its worker died 4 times")))


def test_a_cell_whose_worker_died_is_written_down(tmp_path):
    made = run_study(planned(), tmp_path, engine=Dies())
    assert set(made.failed) == set(planned().cells)
    store = Store(tmp_path)
    assert all(store.failed(cell)["error"] == "WorkError: its worker died 4 times" for cell in made.failed)
    again = run_study(planned(), tmp_path, only=[next(iter(planned().cells))], retry=True)
    assert again.ok


def test_only_some(tmp_path):
    made = run_study(planned(), tmp_path / "out", only=["tap=encoder.*3", "fold=0", "pool=mean"])
    assert len(made.done) == 2  # and the control beside it
    name = next(iter(planned().cells))
    assert name in run_study(planned(), tmp_path / "out", only=[name]).done
    plan = planned()
    for control, many in (("kmer", 1), ("none", 2)):
        own = {e.cell for e in plan.entries if (e.control or "none") == control and e.labels["fold"] == "0"}
        made = run_study(plan, tmp_path / control, only=[f"control={control}", "fold=0", "tap=encoder.stage3"])
        assert made.done <= own and len(made.done) == many
    for only, said in (
        (["fold=9"], "no cell is like that"),
        (["control=kmr"], "there is no such control; .*kmer"),
        (["fol=0"], "no such axis|there is no axis 'fol'"),
        (["ab"], "no such cell"),
    ):
        with pytest.raises(WorkError, match=said):
            run_study(planned(), tmp_path / "out", only=only)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(WorkError, match="a folder with other things in it"):
        run_study(planned(), tmp_path)


def test_one_failing_cell_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch):
    """Also by the exit status; and it is tried again only where that is asked for."""
    from agblocks.studies.work import ridge

    real, calls = ridge.fitted, []

    def breaks(cell, *args, **kwargs):
        calls.append(cell.id)
        if cell.given["tap"] == "encoder.stage3" and cell.document["test"] == ["0"]:
            raise ZeroDivisionError("the second line\nis not told")
        return real(cell, *args, **kwargs)

    monkeypatch.setattr(ridge, "fitted", breaks)
    told = []
    made = run_study(planned(), tmp_path / "out", say=told.append)
    assert not made.ok and len(made.failed) == 2 and len(made.done) == len(planned().cells) - 2
    assert set(made.failed.values()) == {"ZeroDivisionError: the second line"}
    for name in made.failed:
        failed = json.loads((tmp_path / "out" / "cells" / name / "failed.json").read_text())
        assert failed["cell"] == name and failed["error"] == made.failed[name] and "breaks" in failed["traceback"]
        assert any(name in line and "ZeroDivisionError" in line for line in told)
    many = len(calls)
    again = run_study(planned(), tmp_path / "out")
    assert again.failed == made.failed and len(calls) == many
    monkeypatch.setattr(ridge, "fitted", real)
    mended = run_study(planned(), tmp_path / "out", retry=True)
    assert mended.ok and not list(tmp_path.glob("out/cells/*/failed.json"))


def test_cells_that_start_from_a_failed_one_wait(tmp_path, monkeypatch):
    from agblocks.studies.work import gradient

    def breaks(cell, store):
        raise MemoryError("no room")

    monkeypatch.setattr(gradient, "_trained", breaks)
    study = planned(TRANSFER, "vary.way={probe: {fit: ridge}}", "controls=[random, kmer]")
    made = run_study(study, tmp_path / "out")
    assert list(made.failed.values()) == ["MemoryError: no room"]
    waits = {name for name, cell in study.cells.items() if cell.needs}
    assert set(made.waits) == waits and made.done == set(study.cells) - waits - set(made.failed)


WORKER = """
import sys
from study_helpers import planned
from agblocks.studies import run_study
sys.exit(not run_study(planned(), sys.argv[1], share=sys.argv[2], costs=False, say=lambda text: print(text, flush=True)).ok)
"""


def worker(out, share="", **options):
    command = [sys.executable, "-c", WORKER, str(out), share]
    return subprocess.Popen(
        command, cwd=Path(__file__).parent, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, **options
    )


def test_killed_at_any_time_it_goes_on(finished, tmp_path):
    """kill -9 after each finished task in turn: the results are those of a run that nobody disturbed."""
    out, killed = tmp_path / "out", 0
    while True:
        process = worker(out)
        for told, _ in enumerate(process.stdout):
            if told == 1:  # a task has ended, another one is being done
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
        assert killed < 20
    assert killed >= 1
    assert results(out) == results(finished)


def test_two_processes_share_the_work(finished, tmp_path):
    """Nothing is done twice, and the results are those of one."""
    both = [worker(tmp_path / "out"), worker(tmp_path / "out")]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert results(tmp_path / "out") == results(finished)
    # Either heard of all cells; but each was written once.
    assert all("to do" in text for text in said)


def test_shares(finished, tmp_path):
    """By id: each task is in one share, whatever is finished by now."""
    from agblocks.studies.run import tasks_of

    study = planned()
    whole = {task.id for task in tasks_of(study.cells, study, "out")}
    shares = [{task.id for task in tasks_of(study.cells, study, "out", f"{i}/3")} for i in range(3)]
    assert set.union(*shares) == whole and sum(map(len, shares)) == len(whole)
    transfer = planned(TRANSFER)
    for i in range(3):
        tasks = tasks_of(transfer.cells, transfer, "out", f"{i}/3")
        ids = {cell for task in tasks for cell in task.ids}
        assert all(set(task.needs) <= ids for task in tasks)
    for share in ("2/2", "a/2", "1", "1/0"):
        with pytest.raises(WorkError, match="wanted one share of several"):
            tasks_of(study.cells, study, "out", share)


def test_a_claim_dies_with_its_process(tmp_path):
    store = Store(tmp_path)
    program = (
        "import sys, time; from agblocks.studies.store import Store\n"
        "with Store(sys.argv[1]).claim('one') as mine: print(mine, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    with store.claim("one") as mine:
        assert not mine
    with store.claim("another") as mine:
        assert mine
    process.kill()
    process.wait()
    for _ in range(50):
        with store.claim("one") as mine:
            if mine:
                return
        time.sleep(0.1)
    raise AssertionError("the claim outlived its process")


def test_the_queue_keeps_the_order_of_needs():
    now = [0.0]
    tasks = [
        Task("b", ({"cell": "2"},), ("1",)), Task("a", ({"cell": "1"},)), Task("c", ({"cell": "3"},), ("2",)),
        Task("d", ({"cell": "4"},), ("elsewhere",)),
    ]  # fmt: skip
    queue = Queue(tasks, clock=lambda: now[0])
    assert [queue.next().id, queue.next().id, queue.next()] == ["a", "d", None]
    queue.ended(Outcome("a", busy=True))
    assert queue.next() is None and queue.pause() > 0 and queue.left
    now[0] += 2
    assert queue.next().id == "a"
    queue.ended(Outcome("a", failed={"1": "why"}))
    queue.ended(Outcome("d", done=("4",)))
    assert not queue.left and {o.task: o.waits for o in queue.stuck()} == {"b": ("1",), "c": ("2",)}


def test_a_transfer_end_to_end(tmp_path):
    """Pretraining first, then probes, fits and controls; weights of cells that nobody needs are not kept."""
    study = plan(load_study(TRANSFER, "vary.tap=[encoder.stage1]"))
    made = run_study(study, tmp_path / "out")
    assert made.ok, made.failed
    base = next(name for name, cell in study.cells.items() if cell.given.get("keep"))
    assert {path.parent.name for path in tmp_path.glob("out/cells/*/run")} == {base}
    for name, cell in study.cells.items():
        result = json.loads((tmp_path / "out" / "cells" / name / "result.json").read_text())
        assert (result["weights"] is not None) == bool(cell.needs)
        if cell.fit == "gradient":
            assert result["parameters"] == cell.given["parameters"] and result["chosen"]["epochs"] == [1]


def test_each_model_is_measured_once(tmp_path):
    """By what it computes: not by fold, nor by how it is pooled; a finished measurement stays."""
    study = planned(PROBES, "vary.tap=[encoder.stage1]", "reference=null")
    assert run(study, tmp_path / "out").ok
    (cost,) = tmp_path.glob("out/costs/*.json")
    told = json.loads(cost.read_text())
    assert told["macs_per_base"] > 0 and told["latency_32_ms"] > 0 and told["bases"] == 40
    named = {json.loads(file.read_text())["cost"] for file in tmp_path.glob("out/cells/*/result.json")}
    assert named == {cost.stem, None}  # counts of k-mers cost nothing
    before = cost.stat().st_mtime_ns
    run(study, tmp_path / "out")
    assert cost.stat().st_mtime_ns == before


SIMILAR = """
similarity:
  with_and_without:
    data: sim
    rows: {recipe: tiny, weights: base}
    columns: {recipe: tiny, seed: 1, tap: "encoder.stage[12]"}
"""


def test_similarity_of_stages(tmp_path):
    """Whole, from the models that the study trains, and not worked out again; its models come first."""
    text = TRANSFER.replace("  set: {encoder.stages: 3}\n", "") + SIMILAR
    study = planned(text, "vary.way={probe: {fit: ridge}}", "vary.tap=[encoder.stage1]", "controls=[random]")
    assert study.to_dict()["similarity"] == ["with_and_without"]
    assert run_study(study, tmp_path / "out").ok
    (file,) = tmp_path.glob("out/similarity/*.json")
    made = json.loads(file.read_text())
    assert made["rows"] == [f"encoder.stage{i}" for i in (1, 2, 3, 4)] and made["columns"] == made["rows"][:2]
    assert made["sequences"] == 90 and all(-0.5 < value <= 1.001 for line in made["matrix"] for value in line)
    before = file.stat().st_mtime_ns
    run_study(study, tmp_path / "out")
    assert file.stat().st_mtime_ns == before
    for change, said in (
        ("rows: {recipe: tiny", "rows: {recip: tiny"),
        ("[12]", "[89]"),
        ("data: sim\n    rows", "data: sin\n    rows"),
    ):
        with pytest.raises(StudyError, match="similarity.with_and_without"):
            planned(text.replace(change, said))
