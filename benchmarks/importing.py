"""`import agblocks` against `import torch`, whole processes in turn: at most 1.15 times."""

from __future__ import annotations

import subprocess
import sys

from .timing import pair


def importing(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def main(repeats: int = 15) -> None:
    ours, torch, ratio = pair(lambda: importing("agblocks"), lambda: importing("torch"), repeats)
    print(f"import agblocks {ours}, import torch {torch}, ratio {ratio}")


if __name__ == "__main__":
    main()
