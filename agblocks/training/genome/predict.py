"""Whole chromosomes, or regions of them, predicted window by window and written as bigWigs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from ...data.sequence import Ambiguous
from ...data.tracks import ChromosomeNames, Genome
from ..errors import RunError
from ..run import Model, Run
from ..settings import Precision
from ..write import alone, write_whole
from .agreement import Agreement
from .bigwigs import Entry, bedgraph, write_bigwig
from .parts import Parts
from .passes import Plan, read_chromosome
from .reader import Reader, reader
from .regions import Region, chosen
from .shape import Reads, reads
from .stitch import Blend
from .tiling import Bins, TilingError, advance

Strands = Literal["forward", "reverse", "both"]
PASSES = {"forward": (False,), "reverse": (True,), "both": (False, True)}
REPORT = "prediction.json"
AT_ONCE = {"cpu": 1 << 17}  # bases of a batch; elsewhere more
OVERLAP = 0.25  # of what a window says, for recipes that see everything
Told = Callable[[str, int], None]
Found = dict[str, tuple[int, Mapping[str, Bins]]]  # by chromosome, its number among the parts and its bins


@dataclass(frozen=True)
class Predicted:
    """What was written. files: by output and track; report: what `prediction.json` holds."""

    files: Mapping[tuple[str, str], Path]
    report: Mapping[str, Any]


def predict_genome(
    model: Model | Run,
    fasta: str | Path | Genome,
    out: str | Path,
    *,
    chromosomes: Sequence[str] | None = None,
    regions: str | Path | Iterable[Region] | None = None,
    outputs: Sequence[str] = (),
    tracks: Mapping[str, Sequence[int | str]] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    pairs: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    inputs: Mapping[str, int] | None = None,
    window: int | None = None,
    overlap: float | None = None,
    blend: Blend = "crop",
    strands: Strands | None = None,
    ambiguous: Ambiguous | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    precision: Precision = "32-true",
    chromosome_names: ChromosomeNames | None = None,
    told: Told = lambda chromosome, bases: None,
) -> Predicted:
    """Predict along chromosomes and write one bigWig a track, at its output's resolution, into the folder `out`.

    model: a built model with its weights, or a run (`load_run`; members of an ensemble are averaged; a run of genome
        tracks brings names, strand pairs, units and its window).
    fasta: a FASTA file or an opened `Genome`. chromosomes: these of it, by default all. regions: a BED file, or tuples
        (chromosome, start, end); what is written there is what the whole chromosome's prediction has there.
    outputs: heads or edges that are tracks; by default every head that is. tracks: output -> names or numbers.
    names: output -> a name for each of its tracks. pairs: output -> pairs of tracks that are the two strands of one.
    inputs: values of whole-number inputs, like {"organism": 0}.
    window: bases read at once. overlap: what the usable parts of neighbouring windows share at least, in bases, or
        below 1 as a fraction of them.
    blend: "crop" cuts between two windows in the middle of what they share, "linear" goes from one to the other there.
    strands: "both" averages the strands, tracks of pairs swapped; by default as a run was set up, else "forward".
    batch_size: windows at once. precision: as in training. told: is called with a chromosome and the bases read.

    For recipes of convolutions, each window's bins that hang on where it ends are cropped, and the result is that of
    one long window over the chromosome up to rounding. Recipes that see everything need a `window` (a run of tracks
    knows its own); their windows share a quarter by default, and how far they agree there stands in the report.
    A killed prediction goes on where it was, chromosome by chromosome, if called again with the same.
    Shapes: a bigWig has a value for each bin; bins that a chromosome's end cuts are cut there.
    Errors: `TilingError` for a window or an overlap that doesn't fit; `RunError` and `DataError` with place for others.
    Costs: on disk 4 bytes a bin and track beside the bigWigs until these are written; in memory a chromosome's letters
        and a batch.
    """
    check_words(blend=blend, strands=strands, precision=precision)
    genome = fasta if isinstance(fasta, Genome) else Genome(fasta, chromosome_names)
    wanted = chosen(genome.lengths, chromosomes, regions, genome.names)
    read = reader(
        model, outputs=outputs, tracks=tracks, names=names, pairs=pairs, inputs=inputs, device=device,
        precision=precision, ambiguous=ambiguous,
    )  # fmt: skip
    how = reads(read.resolved, tuple(read.outputs), read.wiring.dna)
    plan = planned(read, how, window, overlap, blend, batch_size)
    both = isinstance(model, Run) and model.settings.strands == "both"
    said: Strands = strands or ("both" if both else "forward")
    folder = Path(out)
    files = _files(folder, read)
    key = {
        "model": read.fingerprint(), "wiring": repr(read.wiring), "outputs": repr(read.outputs), "regions": wanted,
        "window": plan.window, "overlap": plan.overlap, "blend": blend, "strands": said, "ambiguous": read.ambiguous,
        "precision": precision, "device": read.device.type,
    }  # fmt: skip
    with alone(folder, "predicting"):
        parts = Parts(folder, key)
        report, at = _read_all(read, plan, genome, wanted, PASSES[said], parts, told)
        for (output, track), file in files.items():
            column = read.outputs[output].names.index(track)
            write_bigwig(file, genome.lengths, _entries(genome, wanted, parts, at, read, output, column))
        report = {
            "format": "agblocks-prediction", "version": 1, "recipe": read.resolved.digest, "model": key["model"],
            "fasta": str(genome.path), "exact": how.exact, "window": plan.window, "overlap": plan.overlap,
            "grid": plan.shape.grid, "blend": blend, "strands": said, "precision": precision,
            "files": [{"output": o, "track": t, "file": f.name} for (o, t), f in files.items()], **report,
        }  # fmt: skip
        write_whole(folder / REPORT, json.dumps(report, indent=1).encode())
        parts.remove()
    return Predicted(files, report)


def planned(
    read: Reader, how: Reads, window: int | None, overlap: float | None, blend: Blend, batch_size: int | None = None
) -> Plan:
    """Window, overlap and batch, where nobody says them, and whether they go together. Errors: `TilingError`."""
    if overlap is not None and not 0 <= overlap < inf:
        raise TilingError(f"overlap is {overlap}; wanted bases, or a fraction below 1")
    if batch_size is not None and batch_size < 1:
        raise TilingError(f"batch_size is {batch_size}; wanted a whole number from 1")
    length = window or (read.window if not how.exact else 0) or how.usual()
    if overlap is None and not how.exact:
        free = advance(length, how.shape)
        shared = min(int(OVERLAP * free), free - how.shape.grid)  # what the grid leaves room for, where it is coarse
    elif overlap is not None and 0 < overlap < 1:
        shared = int(overlap * advance(length, how.shape))
    else:
        shared = int(overlap or 0)
    advance(length, how.shape, shared)
    batch = batch_size or max(1, AT_ONCE.get(read.device.type, 1 << 20) // length)
    return Plan(how.shape, length, shared, blend, batch)


def check_words(**values: str | None) -> None:
    """Errors: `RunError` for a word that is none of an argument's."""
    for name, value in values.items():
        options = get_args({"blend": Blend, "strands": Strands, "precision": Precision}[name])
        if value is not None and value not in options:
            raise RunError(f"{name} is {value!r}, wanted {' or '.join(options)}")


def _read_all(
    read: Reader, plan: Plan, genome: Genome, wanted: Mapping[str, list[tuple[int, int]]], passes: Sequence[bool],
    parts: Parts, told: Told,
) -> tuple[dict[str, Any], Found]:  # fmt: skip
    """Every chromosome into its parts, those that are there left as they are; what is said of all together."""
    agreement = {name: Agreement(len(output.columns)) for name, output in read.outputs.items()}
    bases = seconds = windows = 0.0
    at: Found = {}
    for number, (name, stretches) in enumerate(wanted.items()):
        length = genome.lengths[name]
        if not length:
            continue
        codes = genome.codes(name, 0, length)
        checksum = hashlib.blake2b(codes.tobytes(), digest_size=16).hexdigest()
        bins = plan.forward(length).bins
        at[name] = number, bins
        if (noted := parts.done(number, checksum)) is None:
            began = time.perf_counter()
            arrays = {
                output: parts.array(number, output, (len(kept.columns), bins[output].count), new=True)
                for output, kept in read.outputs.items()
                if bins[output].count
            }
            passed = read_chromosome(
                read, plan, codes, stretches, arrays, passes, f"{genome.path}: {name}", partial(told, name)
            )
            for array in arrays.values():
                array.flush()
            del arrays
            noted = {
                "codes": checksum, "seconds": time.perf_counter() - began, "windows": passed.windows,
                "bases": passed.bases, "agreement": {n: a.to_dict() for n, a in passed.agreement.items()},
            }  # fmt: skip
            parts.note(number, noted)
        bases, seconds, windows = bases + noted["bases"], seconds + noted["seconds"], windows + noted["windows"]
        for output, values in noted["agreement"].items():
            agreement[output].merge(Agreement.from_dict(values))
    report = {
        "chromosomes": {name: sum(end - start for start, end in wanted[name]) for name in at},
        "windows": int(windows), "bases_read": int(bases), "seconds": round(seconds, 3),
        "agreement": {
            name: [
                {"track": track, "bins": agreement[name].bins, **told}
                for track, told in zip(output.names, agreement[name].told(), strict=True)
            ]
            for name, output in read.outputs.items()
        },
    }  # fmt: skip
    return report, at


def _entries(
    genome: Genome, wanted: Mapping[str, list[tuple[int, int]]], parts: Parts, at: Found, read: Reader, output: str,
    column: int,
) -> Iterator[Entry]:  # fmt: skip
    """One track. A chromosome that is too short for a bin has none."""
    for name, (number, all_bins) in at.items():
        bins = all_bins[output]
        if bins.count:
            array = parts.array(number, output, (len(read.outputs[output].columns), bins.count))
            yield from bedgraph(name, genome.lengths[name], bins.first, bins.stride, wanted[name], array[column])


def _files(folder: Path, read: Reader) -> dict[tuple[str, str], Path]:
    """A file for each track: `<output>.<track>.bw`, or `<output>.bw` for an output with one that has no name."""
    files = {}
    for name, output in read.outputs.items():
        for track in output.names:
            stem = re.sub(r"[^\w.+-]+", "_", f"{name}.{track}" if track else name)
            files[name, track] = folder / f"{stem}.bw"
    if len({file.name.lower() for file in files.values()}) < len(files):
        raise RunError("two tracks would be written to one file; names tells them apart")
    return files
