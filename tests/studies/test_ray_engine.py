"""Cells on a Ray cluster of this machine, started for the tests."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

import numpy as np
import pytest
import torch
from ray_helpers import dies, noted, raises, task, waits, work

from agblocks.studies.engines import Inline, engine_named
from agblocks.studies.errors import WorkError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 of itself, which starves beside other tests
ray = pytest.importorskip("ray", reason="the extra ray is not installed")
from agblocks.studies.engines.ray import RETRIES, Ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core each, as far as Ray knows; starting them takes seconds."""
    from ray.cluster_utils import Cluster

    # Ports said: a raylet that is to find out its agents' gives up after 15 seconds, which a busy machine needs.
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    machines = Cluster()
    try:
        for _ in range(2):
            machines.add_node(num_cpus=1, include_dashboard=False, **{name: free_port() for name in names})
        engine = Ray(machines.address)
        with engine._cluster():
            yield engine
    finally:
        machines.shutdown()
    assert not ray.is_initialized()


def free_port():
    with socket.socket() as there:
        there.bind(("", 0))
        return there.getsockname()[1]


def run(engine, out, tasks, perform):
    told = []
    engine.run(str(out), tasks, perform, told.append)
    return {outcome.task: outcome for outcome in told}


CHAIN = [task("last", ["middle", "side"]), task("middle", ["first"]), task("first"), task("side")]


def test_tasks_wait_for_what_they_need(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("AGBLOCKS_TOLD", "something")
    told = run(cluster, tmp_path, CHAIN, work)
    assert {name: outcome.done for name, outcome in told.items()} == {t.id: (t.id,) for t in CHAIN}
    begun, ended = noted(tmp_path, "begun"), noted(tmp_path, "ended")
    assert all(len(times) == 1 for times in begun.values())
    for one in CHAIN:
        for need in one.needs:
            assert float(ended[need][0]) <= float(begun[one.id][0])
    assert all(said == [os.getcwd()] for said in noted(tmp_path, "where").values())
    assert all(said == ["something"] for said in noted(tmp_path, "told").values())


def test_both_engines_tell_the_same(cluster, tmp_path):
    """Also of what fails and of what waits for it."""
    tasks = [*CHAIN, task("broken"), task("after", ["broken"]), task("later", ["after"])]
    told = []
    for name, engine in (("ray", cluster), ("inline", Inline())):
        (tmp_path / name).mkdir()
        made = run(engine, tmp_path / name, tasks, dies)
        told.append({key: (o.done, dict(o.failed), o.waits, o.busy) for key, o in made.items()})
    assert told[0] == told[1]
    assert told[0]["broken"] == ((), {"broken": "as cells fail"}, (), False)
    assert told[0]["later"] == ((), {}, ("after",), False)


def test_a_worker_is_killed_while_it_works(cluster, tmp_path):
    """Killed from outside, midway: the task is done again on another worker, and everything else goes on."""
    killed = []

    def kill():
        while not (found := noted(tmp_path, "tries").get("slow")):
            time.sleep(0.05)
        killed.append(int(found[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    tasks = [task("slow"), *(task(f"other{i}") for i in range(4)), task("after", ["slow"])]
    told = run(cluster, tmp_path, tasks, waits)
    killer.join()
    assert all(outcome.done == (name,) and not outcome.failed for name, outcome in told.items())
    assert len(told) == len(tasks)
    tries = noted(tmp_path, "tries")
    assert len(tries["slow"]) == 2
    assert int(tries["slow"][1]) != killed[0]
    assert all(len(times) == 1 for times in noted(tmp_path, "ended").values())


@pytest.mark.slow
def test_what_kills_every_worker_is_given_up(cluster, tmp_path):
    told = run(cluster, tmp_path, [task("bad"), task("good"), task("after", ["bad"])], dies)
    assert told["good"].done == ("good",)
    assert told["bad"].done == ()
    assert told["bad"].failed["bad"].startswith(f"its worker died {RETRIES + 1} times, out of memory perhaps")
    assert told["after"].waits == ("bad",)
    assert len(noted(tmp_path, "tries")["bad"]) == RETRIES + 1


def test_what_fits_no_machine_is_said(cluster, tmp_path):
    tasks = [task("a"), task("b", resources={"cpus": 1, "gpus": 2, "memory": 7})]
    with pytest.raises(
        WorkError, match=r"a cell wants 1 cpus, 2 gpus, 7\.0 GB, and no machine has that: there are 1 cpus, .*; 1 cpus"
    ):
        run(cluster, tmp_path, tasks, work)
    assert not noted(tmp_path, "begun")


def test_errors_that_are_no_cells_end_the_study(cluster, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not on this machine"):
        run(cluster, tmp_path, [task("a")], raises)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkError, match=r"--engine ray: .*; it comes with pip install 'agblocks\[ray\]'"):
        engine_named("ray")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "wanted"), [("auto", "did ('a',)"), ("127.0.0.1:1", "said: --address 127.0.0.1:1: ")]
)
def test_addresses(cluster, tmp_path, address, wanted):
    """That of the cluster that runs here, and one where nobody answers; from another process, as this one is connected."""
    import subprocess

    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from agblocks.studies.engines import engine_named\n"
        "from ray_helpers import task, work\n"
        "from agblocks.studies.errors import WorkError\n"
        "try: engine_named('ray', sys.argv[3]).run(sys.argv[1], [task('a')], work, lambda o: print('did', o.done))\n"
        "except WorkError as error: print('said:', error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), os.path.dirname(__file__), address]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert wanted in said.stdout, said.stdout + said.stderr


@pytest.mark.slow
def test_nothing_is_left_running(tmp_path):
    """A cluster that was started for a study ends with it."""
    import subprocess

    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from agblocks.studies.engines import engine_named\n"
        "from ray_helpers import task, work\n"
        "engine_named('ray').run(sys.argv[1], [task('a')], work, lambda o: print(o.done))\n"
        "import psutil; print('left', [c.name() for c in psutil.Process().children(recursive=True)])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), os.path.dirname(__file__)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "('a',)" in said.stdout, said.stderr
    assert "left []" in said.stdout


@pytest.mark.slow
def test_the_same_study_gives_the_same_table(cluster, tmp_path):
    """Closed-form probes, fits by gradient, what is trained first, controls: by both engines."""
    from study_helpers import TRANSFER, planned

    from agblocks.studies import run_study
    from agblocks.studies.results import read
    from agblocks.studies.table import table

    tables = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker with one core takes
    for name, engine in (("ray", cluster), ("inline", None)):
        made = run_study(planned(TRANSFER, "vary.tap=[encoder.stage1]"), tmp_path / name, engine=engine)
        assert made.ok, made.failed
        tables.append(table(read(tmp_path / name)))
    torch.set_num_threads(threads)
    ours, theirs = (t.drop([c for c in t.columns if c in MEASURED]) for t in tables)
    assert ours.columns == theirs.columns
    assert set(ours["state"]) == {"done"}
    exact = [name for name, kind in ours.schema.items() if not kind.is_float()]
    assert ours.select(exact).equals(theirs.select(exact))
    for name in set(ours.columns) - set(exact):  # threads may add in another order
        np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


MEASURED = ("seconds", "peak_mb", "run_peak_mb", "latency_1_ms", "latency_32_ms", "command", "host")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_where_nobody_answers(address):
    """Said at once: Ray itself would try for minutes."""
    with pytest.raises((OSError, ValueError)):
        Ray(address)._connect()
