"""Small models of yeast chrIV's five tracks beside a ridge on 4-mers, on blocks that were held out.

`python -m benchmarks.yeast_tracks` (minutes on two free cores) prints the table of docs/results.md; run folders stay
in `runs/yeast_tracks`, and a run that was broken off goes on.
"""

from __future__ import annotations

from pathlib import Path

from agblocks.data import PUBLIC, fetch
from agblocks.training import Settings
from agblocks.training.tracks import GenomeSource, fit_tracks

OUT = Path("runs/yeast_tracks")
RECIPES = ("yeast_alphagenome", "yeast_enformer")
SETTINGS = Settings(
    epochs=15, batch_size=4, lr=3e-3, patience=0, reverse_complement=0.5, shift=512, strands="both", ema=0.98,
    device="cpu",
)  # fmt: skip
TABLE = """name\tpath\tpair
MNase\t{MNase.bw}\t
PolII\t{PolII.bw}\t
RNA.fwd\t{RNA.fwd.bw}\tRNA.rev
RNA.rev\t{RNA.rev.bw}\tRNA.fwd
Scc1\t{Scc1.bw}\t
"""


def source() -> GenomeSource:
    """chrIV in windows of 4,096 bases, every tenth block of 50,000 held out for test, the next for validation."""
    data = PUBLIC["yeast_genome_tracks"]
    files = {file.name: fetch(data, file.name) for file in data.files}
    OUT.mkdir(parents=True, exist_ok=True)
    text = TABLE
    for name, path in files.items():
        text = text.replace(f"{{{name}}}", str(Path(path).resolve()))
    (OUT / "tracks.tsv").write_text(text)
    return GenomeSource(str(files["sacCer3_chrIV.fa"]), str(OUT / "tracks.tsv"), window=4096, block=50_000)


def main() -> None:
    columns: dict[str, dict[tuple[str, str], str]] = {}
    for recipe in RECIPES:
        run = fit_tracks(recipe, source(), OUT / recipe, SETTINGS, resume=True, progress=True)
        for part, name in (("test", recipe), ("ridge", "ridge on 4-mers")):
            columns[name] = {
                (score["head"].removeprefix("coverage_"), score["track"]): "{:.2f} / {:.2f} [{:.2f}, {:.2f}]".format(
                    score["pearson"], score["log_pearson"], *score["log_interval"]
                )
                for score in run.metrics[part]["tracks"]
            }
    print("Pearson r on test bins, of values / of log(1 + value) with its 95% interval\n")
    names = [*RECIPES, "ridge on 4-mers"]
    print("|".join(["", "bins", "track", *names, ""]))
    print("|".join(["", *["---"] * (2 + len(names)), ""]))
    for bins, track in columns[names[0]]:
        print("|".join(["", bins, track, *(columns[name][bins, track] for name in names), ""]))


if __name__ == "__main__":
    main()
