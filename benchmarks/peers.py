"""Speed and memory against published ports: each side in a process of its own, the two in turn, ratios pair by pair.

`make peers` installs the ports. `python -m benchmarks.peers [words]` runs the rows whose name has any of the words.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from .timing import Ratio

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("AGBLOCKS_PEERS", HERE.parent / ".peers"))
ALPHAGENOME, ENFORMER = "alphagenome_pytorch", "enformer_pytorch"
ROWS = {  # name: peer, pairs
    "encoder 1 x 256 bp, f32": (ALPHAGENOME, 12),
    "encoder 1 x 256 bp, bf16": (ALPHAGENOME, 12),
    "encoder 32 x 256 bp, f32": (ALPHAGENOME, 8),
    "encoder 32 x 256 bp, bf16": (ALPHAGENOME, 8),
    "encoder train step 32 x 256 bp": (ALPHAGENOME, 5),
    "encoder train step 32 x 256 bp, ours with batch statistics": (ALPHAGENOME, 5),
    "embeddings 131,072 bp": (ALPHAGENOME, 2),
    "backward 16,384 bp": (ALPHAGENOME, 2),
    "backward 16,384 bp, peer without checkpointing": (ALPHAGENOME, 2),
    "tower 8,192 positions": (ALPHAGENOME, 2),
    "tower train step 2,048 positions": (ALPHAGENOME, 3),
    "tower train step 8,192 positions": (None, 1),
    "Enformer encoder 32 x 256 bp": (ENFORMER, 8),
    "Enformer 196,608 bp": (ENFORMER, 2),
}


class Side:
    """A worker process for one side."""

    def __init__(self, python: Path, side: str, work: str):
        arguments = [str(python), str(HERE / "worker.py"), str(HERE / "sides" / f"{side}.py")]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.say(f"prepare {work}")

    def say(self, line: str) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process for {self.process.args!r} ended on {line!r}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def compare(work: str) -> str:
    """One row of the table."""
    peer, repeats = ROWS[work]
    sides = [Side(Path(sys.executable), "ours", work)]
    if peer is not None:
        sides.append(Side(PEERS / peer / "bin" / "python", peer, work))
    runs: list[list[dict[str, float]]] = [[] for _ in sides]
    try:
        for turn in range(-1, repeats):  # the first is to warm up
            for index in list(range(len(sides)))[:: 1 if turn % 2 else -1]:
                answer = sides[index].say("run")
                if turn >= 0:
                    runs[index].append(answer)
    finally:
        for side in sides:
            side.close()
    cells = [work]
    for side in runs:
        seconds, peak, above = (
            statistics.median(values)
            for values in zip(*((r["seconds"], r["peak"], r["peak"] - r["before"]) for r in side), strict=True)
        )
        cells += [f"{seconds:.3f} s", f"{peak / 1000:.2f} GB, {above / 1000:.2f} above"]
    if peer is not None:
        pairs = list(zip(*runs, strict=True))
        peaks = statistics.median(a["peak"] for a in runs[0]) / statistics.median(b["peak"] for b in runs[1])
        extra = [statistics.median(r["peak"] - r["before"] for r in side) for side in runs]
        cells += [
            f"{Ratio([a['seconds'] / b['seconds'] for a, b in pairs])}",
            f"{peaks:.2f}",
            f"{extra[0] / extra[1]:.2f}",
        ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    if not PEERS.is_dir():
        print("no peers are installed: make peers")
        return
    words = [word for word in sys.argv[1:] if word != "peers"]
    print("| work | ours | memory | peer | memory | time, ours / peer | peak | above before |\n" + "|---" * 8 + "|")
    for work in ROWS:
        if not words or any(word in work for word in words):
            print(compare(work), flush=True)


if __name__ == "__main__":
    main()
