"""docs/adapter_kinds.md is what tools/adapters_page.py writes: `make docs` where it is not."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    spec = importlib.util.spec_from_file_location("adapters_page", ROOT / "tools" / "adapters_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written, now = module.PAGE.read_text(), module.page()
    changed = [line for line in now.splitlines() if line not in written.splitlines()]
    assert written == now, "\n".join(["run `make docs`: these lines are new or changed", *changed[:20]])
