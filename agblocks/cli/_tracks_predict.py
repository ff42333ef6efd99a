"""`agblocks tracks predict`: what a model says along chromosomes, as bigWigs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ._common import Overrides
from ._training import Inputs, inputs_of, listed

Several = list[str] | None


def predict(
    model: Annotated[str, typer.Argument(help="a run folder, or a recipe with --weights", show_default=False)],
    fasta: Annotated[Path, typer.Option(help="the genome", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the bigWigs", show_default=False)],
    overrides: Overrides = None,
    weights: Annotated[str, typer.Option(help="of a recipe: a file, a run, a hub repository owner/name")] = "",
    chromosomes: Annotated[str, typer.Option(help="these, like chrIV,chrV; default: all")] = "",
    bed: Annotated[Path | None, typer.Option(help="regions to write; values are those of the whole chromosome")] = None,
    names: Annotated[Path | None, typer.Option(help="a file with other names of chromosomes, a line each")] = None,
    output: Annotated[Several, typer.Option(help="a head, or any edge that is a track; default: all heads")] = None,
    track: Annotated[Several, typer.Option(help="some of an output's tracks, like human=0,12 or human=liver")] = None,
    pair: Annotated[Several, typer.Option(help="tracks that are the two strands of one, like rna=0:1")] = None,
    input: Inputs = None,
    window: Annotated[int, typer.Option(help="bases read at once; default: the run's, or by the recipe's reach")] = 0,
    overlap: Annotated[
        float | None, typer.Option(help="what windows share: bases, or below 1 a fraction; default: by need")
    ] = None,
    blend: Annotated[str, typer.Option(help="where windows meet: crop | linear")] = "crop",
    strands: Annotated[str, typer.Option(help="forward | reverse | both; default: as the run was set up")] = "",
    ambiguous: Annotated[str, typer.Option(help="IUPAC letters other than N: zeros | fraction")] = "",
    batch_size: Annotated[int, typer.Option(help="windows at once; default: by their length")] = 0,
    device: Annotated[str, typer.Option(help="cpu | cuda | ...; default: a GPU where there is one")] = "",
    precision: Annotated[str, typer.Option(help="32-true | bf16-mixed | 16-mixed")] = "32-true",
) -> None:
    """Predict along chromosomes: one bigWig a track, as one long window would have it; a killed prediction goes on."""
    from ..data.tracks import ChromosomeNames, Genome
    from ..training.genome import predict_genome

    said: Any = {"strands": strands or None, "ambiguous": ambiguous or None, "blend": blend, "precision": precision}
    genome = Genome(fasta, ChromosomeNames.read(names) if names else None)
    made = predict_genome(
        _model(model, overrides or [], weights), genome, out, chromosomes=listed(chromosomes) or None, regions=bed,
        outputs=output or (), tracks=_tracks(track), pairs=_pairs(pair), inputs=inputs_of(input) or None,
        window=window or None, overlap=overlap, batch_size=batch_size or None, device=device or None,
        told=_Begun(), **said,
    )  # fmt: skip
    _tell(made, out)


class _Begun:
    """Says on standard error which chromosome is being read."""

    def __init__(self) -> None:
        self.chromosome = ""

    def __call__(self, chromosome: str, bases: int) -> None:
        if chromosome != self.chromosome:
            self.chromosome = chromosome
            print(f"{chromosome} ...", file=sys.stderr, flush=True)


def _model(model: str, overrides: list[str], weights: str) -> Any:
    """A run, or a recipe with weights."""
    from .. import build, load_weights
    from ..errors import AgblocksError
    from ..training import load_run

    path = Path(model)
    if path.suffix == ".safetensors" or (path.is_dir() and not weights):
        if overrides or weights:
            raise AgblocksError(
                f"{model} is a run: its recipe and weights are its own; leave out overrides and --weights"
            )
        return load_run(path)
    if not weights:
        raise AgblocksError(
            f"{model} is a recipe, whose weights would be drawn by chance: say --weights, or give a run"
        )
    made = build(model, *overrides)
    print(load_weights(made, weights))
    return made.eval()


def _tracks(texts: Several) -> dict[str, list[int | str]] | None:
    """`human=0,12` as numbers, `human=liver` as names."""
    found: dict[str, list[int | str]] = {}
    for text in texts or ():
        name, parts = _said(text, "--track", "head=number or head=name,name")
        found.setdefault(name, []).extend(int(part) if part.isdecimal() else part for part in parts)
    return found or None


def _pairs(texts: Several) -> dict[str, list[tuple[int, int]]] | None:
    """`rna=0:1,2:3` as pairs of numbers."""
    from ..errors import AgblocksError

    found: dict[str, list[tuple[int, int]]] = {}
    for text in texts or ():
        name, parts = _said(text, "--pair", "head=number:number")
        for part in parts:
            one, colon, other = part.partition(":")
            if not (colon and one.isdecimal() and other.isdecimal()):
                raise AgblocksError(f"--pair {text}: wanted head=number:number, like rna=0:1,2:3")
            found.setdefault(name, []).append((int(one), int(other)))
    return found or None


def _said(text: str, option: str, wanted: str) -> tuple[str, tuple[str, ...]]:
    from ..errors import AgblocksError

    name, equals, rest = text.partition("=")
    if not (equals and listed(rest)):
        raise AgblocksError(f"{option} {text}: wanted {wanted}")
    return name.strip(), listed(rest)


def _tell(made: Any, out: Path) -> None:
    from ..data.errors import count

    report = made.report
    bases = sum(report["chromosomes"].values())
    seconds = report["seconds"]
    print(f"{bases:,} bases of {count(len(report['chromosomes']), 'chromosome')} in {report['windows']:,} windows of "
          f"{report['window']:,}, {seconds:,.1f} s: {len(made.files)} bigWigs in {out}")  # fmt: skip
    if report["exact"]:
        print("windows are cropped by the recipe's reach: values are those of one long window, up to rounding")
        return
    for output, tracks in report["agreement"].items():
        known = [t for t in tracks if t["mean"] is not None]
        if not known:
            print(f"{output}: no two windows share a bin, so nothing says how far they agree (see --overlap)")
            continue
        worst = min(known, key=lambda t: 1.0 if t["pearson"] is None else t["pearson"])
        mean = sum(t["mean"] for t in known) / len(known)
        level = sum(t["prediction"] for t in known) / len(known)
        alike = "it has no spread" if worst["pearson"] is None else f"r {worst['pearson']:.4f}"
        largest = max(t["max"] for t in known)
        print(
            f"{output}: where windows overlap they differ by {mean:.3g} on average and {largest:.3g} at most; the "
            f"mean prediction there is {level:.3g}; the track least alike, {worst['track']!r}: {alike}"
        )
