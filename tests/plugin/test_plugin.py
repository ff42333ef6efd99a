"""A third party's package, really installed, registers a block through the entry-point group `agblocks.blocks`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"
PROJECT = Path(__file__).parents[2]

USE = """
import torch
from agblocks import build
from agblocks.testing import check_block
recipe = {"recipe": 1, "inputs": {"dna": "B 4 L"},
          "nodes": {"loud": {"block": "tiny.scale", "in": "dna", "args": {"by": 3.0}}}, "keep": ["loud"]}
model = build(recipe)
print(model(dna=torch.ones(1, 4, 5))["loud"].sum().item())
check_block("tiny.scale", contracts=["shape", "rows", "reach", "lengths"])
print("checked")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the package is installed into."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--target", folder, PACKAGE]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:  # hatchling is not here: what a wheel would hold, by hand
        (folder / "agblocks_tiny_plugin.py").write_text((PACKAGE / "agblocks_tiny_plugin.py").read_text())
        write_info(folder, "agblocks_tiny_plugin", "tiny = agblocks_tiny_plugin")
    return folder


def write_info(folder, name, entry_point):
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[agblocks.blocks]\n{entry_point}\n")


def run(code, *folders):
    path = os.pathsep.join(map(str, [*folders, PROJECT]))
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_an_installed_block_resolves_builds_and_is_checked(installed):
    done = run(USE, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["60.0", "checked"]


def test_without_the_package_the_name_is_unknown():
    done = run(USE)
    assert done.returncode == 1
    assert "no block is registered as 'tiny.scale'" in done.stderr


def test_a_broken_plugin_warns_names_itself_and_stops_nothing(installed, tmp_path):
    (tmp_path / "broken_plugin.py").write_text("import no_such_library\n")
    write_info(tmp_path, "broken_plugin", "broken = broken_plugin")
    done = run("from agblocks.graph.registry import entries; print('tiny.scale' in entries())", tmp_path, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
    assert "plug-in 'broken' (broken_plugin) registers no blocks: ModuleNotFoundError: No module" in done.stderr


def test_a_name_registered_twice_is_refused_with_both_places(installed, tmp_path):
    text = (PACKAGE / "agblocks_tiny_plugin.py").read_text()
    (tmp_path / "second_plugin.py").write_text(text)
    write_info(tmp_path, "second_plugin", "zz = second_plugin")
    done = run("from agblocks.graph.registry import entries; print('tiny.scale' in entries())", tmp_path, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
    assert "'tiny.scale' is registered twice: at " in done.stderr
    assert str(installed / "agblocks_tiny_plugin.py") in done.stderr
    assert str(tmp_path / "second_plugin.py") in done.stderr


def test_a_name_of_agblocks_itself_is_refused_too(tmp_path):
    text = (PACKAGE / "agblocks_tiny_plugin.py").read_text().replace("tiny.scale", "join.add")
    (tmp_path / "thief.py").write_text(text)
    write_info(tmp_path, "thief", "thief = thief")
    done = run("from agblocks.graph.registry import lookup; print(lookup('join.add').target.__module__)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("agblocks.")
    assert "plug-in 'thief' (thief) registers no blocks" in done.stderr
