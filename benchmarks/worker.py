"""One side of a comparison in a process of its own: `python worker.py SIDE.py` runs the work that lines on stdin name.

A side is a file with `WORK`, a table from names to functions that build what is needed and return the work to time.
`prepare NAME` builds; `run` does the work once and prints seconds, memory before and the peak during it (MB, resident).
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import sys
import time
from pathlib import Path

import torch


def resident(field: str) -> float:
    """MB of this process by a field of the kernel's account: VmRSS now, VmHWM the highest since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def once(work) -> dict[str, float]:
    """Do some work once."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start, "before": before, "peak": resident("VmHWM")}


def main() -> None:
    torch.set_num_threads(2)
    spec = importlib.util.spec_from_file_location("side", sys.argv[1])
    side = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(side)
    answers, sys.stdout = sys.stdout, sys.stderr
    work = None
    for line in sys.stdin:
        verb, _, name = line.strip().partition(" ")
        if verb == "prepare":
            work = None
            gc.collect()
            torch.manual_seed(0)
            work = side.WORK[name]()
            answer = {}
        else:
            answer = once(work)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
