"""docs/testing.md: its block, run as it stands, prints what the page says; its table lists every contract."""

import re
from pathlib import Path

import planted
import pytest

from agblocks.testing import CONTRACTS

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def numbers_aside(text):
    return re.sub(r"\d+\.\d+", "<number>", text.strip())


def test_the_page_shows_what_is_printed(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    printed = re.search(r"```\n('mine.*?)```", PAGE, re.S)[1]
    file = tmp_path / "mine.py"
    file.write_text(code)
    with planted.registered(), pytest.raises(AssertionError) as caught:
        exec(compile(code, file, "exec"), {"__name__": "mine"})
    assert numbers_aside(str(caught.value)) == numbers_aside(printed)


def test_the_table_lists_every_contract():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) == [contract.name for contract in CONTRACTS]
