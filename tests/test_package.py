"""The wheel: recipes ship inside it, and commands work from any folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (made,) = out.glob("*.whl")
    return made


def test_recipes_and_types_are_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "agblocks/recipes/alphagenome.yaml" in names
    assert "agblocks/recipes/ablations/alphagenome_mpra_stage4.yaml" in names
    assert "agblocks/shipped_studies/stage_transfer.yaml" in names
    assert "agblocks/py.typed" in names
    assert not [n for n in names if n.startswith(("tests", "benchmarks"))]


def test_it_shows_a_recipe_from_any_folder(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv = ['agblocks', 'check', 'tiny']; " + (
        "import agblocks; from agblocks.cli import main; print(agblocks.__file__); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert "tiny: 6 nodes, heads activity; any length" in done.stdout
