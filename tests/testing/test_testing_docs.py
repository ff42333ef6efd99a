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


def test_the_defects_name_tests_that_are_there():
    tests = Path(__file__).parents[1]
    there = {name for file in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    section = PAGE.partition("## What other implementations of adapters get wrong")[2]
    rows = [row for row in section.splitlines() if row.startswith("| ") and "---" not in row][1:]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(test_\w+(?:\.py)?)`", row)
        assert named, row
        for name in named:
            assert name in there or any(tests.rglob(name)), name


def test_the_defects_name_contracts_that_are_there():
    from agblocks.testing.adapter_contracts import ADAPTER_CONTRACTS

    known = {contract.name for contract in ADAPTER_CONTRACTS}
    for named in re.findall(r"`test_kind_contracts.py` \((.*?)\)", PAGE):
        assert {name.strip("` ") for name in named.split(",")} <= known
