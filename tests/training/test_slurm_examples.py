"""The scripts for Slurm: their syntax, and what they do where stand-ins play srun and the tasks' variables."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from parallel_helpers import NORMS, rows

from agblocks.training import load_run

EXAMPLES = Path(__file__).parents[2] / "examples" / "slurm"

# Starts as many processes as two nodes of one task have, with the variables that Slurm gives each; ends all if one fails.
SRUN = """#!{python}
import os, subprocess, sys
command = [a for a in sys.argv[1:]]
while command and command[0].startswith("--"):
    command.pop(0)
tasks = int(os.environ["SLURM_NTASKS"])
here = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": "0",
        "SLURM_NODEID": str(i), "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_ID": "0"}},
        stdout=open(f"task{{i}}.out", "w"), stderr=subprocess.STDOUT) for i in range(tasks)]
codes = [p.wait() for p in here]
sys.exit(max(map(abs, codes)))
"""


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sbatch")), ids=lambda p: p.name)
def test_syntax(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in text


def stand_ins(folder, **programs):
    path = folder / "bin"
    path.mkdir()
    for name, text in programs.items():
        file = path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
        "PATH": f"{path}:{os.environ['PATH']}",
    }


def test_each_job_of_the_array_takes_its_share(tmp_path):
    env = stand_ins(tmp_path, srun='#!/bin/bash\nshift\nexec "$@"\n', agblocks='#!/bin/bash\necho "$@"\n')
    env |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "10"}
    said = subprocess.run(["bash", EXAMPLES / "study.sbatch"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout.strip() == "study run stage_transfer -o studies/stage_transfer --share 3/10", said.stderr


@pytest.mark.slow
def test_fit_on_two_nodes(tmp_path):
    """Two processes that srun starts, each with the whole command, meet at an address and train one run."""
    import json

    table, _ = rows()
    lines = ["sequence\tactivity\tother\tfold"]
    for i, text in enumerate(table.sequences):
        first, second = (f"{v:.6f}" if v == v else "" for v in table.targets[i])
        lines.append(f"{text}\t{first}\t{second}\t{table.fold[i]}")
    (tmp_path / "rows.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "norms.yaml").write_text(json.dumps(NORMS))
    program = f'#!/bin/bash\nexec {sys.executable} -m agblocks "$@"\n'
    env = stand_ins(tmp_path, srun=SRUN.format(python=sys.executable), agblocks=program)
    options = "--sequence sequence --targets activity,other --fold fold --allow-missing --epochs 2 --patience 0 --device cpu --batch-size 32"
    env |= {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "1", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1",
        "RECIPE": "norms.yaml", "DATA": "rows.tsv", "OUT": "run", "OPTIONS": options,
    }  # fmt: skip
    script = ["bash", str(EXAMPLES / "fit.sbatch")]
    said = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    told = [(tmp_path / f"task{i}.out").read_text() for i in range(2)]
    assert said.returncode == 0, told
    run = load_run(tmp_path / "run")
    assert (run.settings.devices, run.settings.nodes) == (1, 2)
    assert run.metrics["members"][0]["epochs"] == 2
    assert "held out" in told[0]
    assert "held out" not in told[1]
    # Again: finished. With other settings: every process says why not.
    assert subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, timeout=600).returncode == 0
    env["OPTIONS"] = options.replace("--epochs 2", "--epochs 3")
    said = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert said.returncode != 0
    for i in range(2):
        assert "settings.epochs was 2, is 3" in (tmp_path / f"task{i}.out").read_text()
