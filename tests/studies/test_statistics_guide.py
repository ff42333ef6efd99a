"""The guide to statistics: its code runs in turn, and says what the guide says."""

import re
from pathlib import Path

from agblocks.studies.statistics import Difference, Share

GUIDE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()


def test_the_code_runs_in_turn(capsys):
    space: dict[str, object] = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)\n```", GUIDE, re.DOTALL)):
        exec(compile(code, f"block {number} of docs/statistics.md", "exec"), space)
    lines = capsys.readouterr().out.splitlines()
    sentence = r"(better by|worse by|no difference can be shown:) -?\d+\.\d+ \[-?\d+\.\d+, -?\d+\.\d+\]"
    assert re.fullmatch(f"1-mers: {sentence}", lines[1]) and re.fullmatch(f"4-mers: {sentence}", lines[2])
    share = next(line for line in lines if line.startswith("3-mers: "))
    assert re.fullmatch(
        r"3-mers: (-?\d+ % \[-?\d+ %, -?\d+ %\] of the Pearson r at 24 % of the coefficients|no share .*)", share
    )
    assert isinstance(space["difference"], Difference) and isinstance(space["share"], Share)
    assert space["spent"]["bases"] == 100 and space["spent"]["notes"] == []
