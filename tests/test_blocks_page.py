"""docs/blocks.md is what tools/blocks_page.py writes: `make docs` where it is not."""

import importlib.util
from pathlib import Path

import pytest

from agblocks.graph.registry import entries

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "blocks.md").read_text()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("blocks_page", ROOT / "tools" / "blocks_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", ["blocks", "fitting"])
def test_the_page_is_current(tool, part):
    first, heading, second = PAGE.partition("## What fits together")
    written = {"blocks": first, "fitting": heading + second}[part]
    now = getattr(tool, part)()
    changed = [line for line in now.splitlines() if line not in written.splitlines()]
    assert written == now, "\n".join(["run `make docs`: these lines are new or changed", *changed[:20]])


def test_every_block_is_on_it():
    ours = [name for name, entry in entries().items() if entry.target.__module__.startswith("agblocks.")]
    assert [name for name in ours if f"| `{name}`" not in PAGE] == []
