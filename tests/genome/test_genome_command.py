"""`agblocks tracks predict`, and the guide: its code and commands run."""

import re
from pathlib import Path

import numpy as np
import pybigtools
import pytest
from typer.testing import CliRunner

from agblocks import build
from agblocks.cli import app
from agblocks.data.tracks import Genome

GUIDE = (Path(__file__).parents[2] / "docs" / "genome.md").read_text()
SMALL = """
recipe: 1
name: small
inputs: {dna: B 4 L}
nodes: {encoder: {block: encoder.alphagenome, in: dna, args: {channels: 8, growth: 0, stages: 2}}}
heads: {coverage: {block: head.coverage, in: encoder, args: {tracks: 3}}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A made genome, a recipe of convolutions with weights, and one that sees everything."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    lines = [f">{name}\n{''.join(random.choice(list('ACGT'), n))}\n" for name, n in (("chrI", 3000), ("chrII", 1000))]
    (tmp_path / "genome.fa").write_text("".join(lines))
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "regions.bed").write_text("chrII\t100\t200\nII\t150\t300\n")
    from safetensors.torch import save_file

    save_file(build(SMALL, seed=1).state_dict(), tmp_path / "small.safetensors")
    save_file(build("enformer_small", seed=1).state_dict(), tmp_path / "enformer_small.safetensors")
    return tmp_path


def command(*words):
    return CliRunner().invoke(app(), ["tracks", "predict", *map(str, words)])


def test_a_recipe_with_weights(folder):
    result = command("small.yaml", "--weights", "small.safetensors", "--fasta", "genome.fa", "-o", "out", "--bed",
                     "regions.bed", "--track", "coverage=2,0", "--pair", "coverage=0:2", "--strands", "both")  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert "200 bases of 1 chromosome in" in result.output
    assert "values are those of one long window" in result.output
    assert sorted(p.name for p in Path("out").iterdir()) == ["coverage.0.bw", "coverage.2.bw", "prediction.json"]
    found = np.array(pybigtools.open("out/coverage.2.bw").values("chrII", 0, 1000, fillna=None))
    assert np.flatnonzero(~np.isnan(found)).tolist() == list(range(100, 300))


def test_what_is_refused(folder):
    for words, said in [
        (["small.yaml", "--fasta", "genome.fa", "-o", "out"], "drawn by chance: say --weights, or give a run"),
        (["small.yaml", "--weights", "small.safetensors", "--fasta", "no.fa", "-o", "out"], "there is no such FASTA"),
        (["small.yaml", "--weights", "small.safetensors", "--fasta", "genome.fa", "-o", "out", "--pair", "coverage=1"],
         "wanted head=number:number"),
        (["small.yaml", "--weights", "small.safetensors", "--fasta", "genome.fa", "-o", "out", "--strands", "two"],
         "strands is 'two', wanted forward or reverse or both"),
        (["small.yaml", "--weights", "small.safetensors", "--fasta", "genome.fa", "-o", "out", "--output", "coverag"],
         "did you mean coverage"),
    ]:  # fmt: skip
        result = command(*words)
        assert result.exit_code != 0
        assert said in f"{result.exception}{result.output}"
    assert not Path("out").exists() or not list(Path("out").glob("*.bw"))


def test_the_guide(folder):
    """Its commands, then its code in turn; and its description of the report is of the report's keys."""
    for line in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL):
        for text in line.replace("\\\n", " ").strip().splitlines():
            words = text.split()
            assert words[:3] == ["agblocks", "tracks", "predict"]
            result = command(*words[3:])
            assert result.exit_code == 0, (text, result.exception)
    space: dict[str, object] = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)):
        exec(compile(code, f"block {number} of docs/genome.md", "exec"), space)
    assert Genome("genome.fa").lengths == {"chrI": 3000, "chrII": 1000}
