"""Every benchmark of this folder, or those named: `python -m benchmarks [recipes overhead ...]`."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

from . import __path__

# Parts of others, and what takes hours or a folder of results: by itself.
SKIP = {"__main__", "timing", "worker", "sides", "adapting", "adapting_report", "stage_tables", "yeast_tracks"}

for module in iter_modules(__path__):
    if module.name not in SKIP and (not sys.argv[1:] or module.name in sys.argv[1:]):
        print(f"## {module.name}", flush=True)
        import_module(f"benchmarks.{module.name}").main()
