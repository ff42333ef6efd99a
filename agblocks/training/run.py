"""A trained run as one safetensors file: weights, and everything that prediction elsewhere needs to know.

`model.safetensors` holds tensors named `<member>/<parameter>` and, as JSON in its metadata, the recipe, its digest, the
construct, the one-hot convention, the targets with their scaling, the settings, the scores, and checksums. A file that
is cut, changed or foreign is refused with the reason; nothing in it is code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters import Adapted
from ..data import Construct, DataError
from ..errors import AgblocksError, near
from ..graph.build import build
from ..graph.model import GraphModel
from ..graph.resolve import Resolved, resolve
from .adapting import attached, state, take
from .errors import RunError
from .settings import Settings
from .wiring import Target, Wiring
from .write import write_whole

Model = GraphModel | Adapted
AnyWiring = Wiring

FILE = "model.safetensors"
FORMAT = "agblocks-run"
VERSION = 1
ONE_HOT = {"channels": "ACGT", "N": "zeros", "axes": "batch channels length"}
_KEYS = ("recipe", "digest", "construct", "one_hot", "wiring", "settings", "metrics", "data", "members", "agblocks")


@dataclass(frozen=True)
class Run:
    """A trained run: its models, and what they were trained on.

    models: one, or the members of an ensemble; in evaluation mode, with their adapters if the recipe has any.
    construct, wiring: from a table's row to the model's inputs, and from its heads to measurements.
    metrics: scores by part ("valid", "test", "history": the kept epoch of each member); data: where the rows came from.
    """

    models: tuple[Model, ...] = field(repr=False)
    construct: Construct
    wiring: Wiring
    settings: Settings
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def model(self) -> Model:
        """The first (mostly the only) model."""
        return self.models[0]

    @property
    def resolved(self) -> Resolved:
        resolved: Resolved = self.model.resolved
        return resolved

    def check_on_sequences(self) -> None:
        """Errors: `RunError` if the run is of genome tracks: it has nothing to say of a table of sequences."""
        if self.wiring.on_tracks:
            raise RunError(
                "this run is of tracks along a genome: `agblocks tracks evaluate` and `agblocks tracks predict`"
            )

    @property
    def digest(self) -> str:
        """The recipe's digest: what the model computes, weights aside."""
        return self.resolved.digest

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.wiring.targets

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.targets)


def save_run(path: str | Path, run: Run) -> Path:
    """Write a run to a folder (as `model.safetensors`) or a file; whole or not at all. Returns the file.

    Errors: `RunError` if it cannot be written, or a weight is not finite.
    """
    from safetensors.torch import save

    from .. import __version__

    tensors = {}
    for member, model in enumerate(run.models):
        for name, value in state(model).items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise RunError(f"member {member}: {name!r} holds values that are not finite; not saved")
            tensors[f"{member}/{name}"] = value.detach().cpu().contiguous().clone()
    content = {
        "recipe": run.resolved.recipe,
        "digest": run.digest,
        "construct": run.construct.to_dict(),
        "one_hot": {**ONE_HOT, "ambiguous": run.settings.ambiguous},
        "wiring": run.wiring.to_dict(),
        "settings": run.settings.to_dict(),
        "metrics": run.metrics,
        "data": run.data,
        "members": len(run.models),
        "agblocks": __version__,
    }
    content |= {"version": VERSION, "weights_sha256": weights_sum(tensors)}
    content["metadata_sha256"] = _metadata_sum(content)
    file = _file(path)
    # One entry: safetensors writes several in any order, and the same run should give the same file.
    write_whole(file, save(tensors, metadata={FORMAT: _json(content)}))
    return file


def load_run(path: str | Path) -> Run:
    """Read a run from its folder or file.

    Errors: `RunError` for a file that is missing, cut, changed, foreign or of another format; for a digest that is not
    the recipe's; for tensors whose names or shapes are not the model's. The message says which.
    Costs: memory for the weights twice, for a moment.
    """
    file = _file(path)
    text, tensors = _read(file)
    content = _content(file, text, tensors)
    if not isinstance(content["recipe"], dict):  # a text would be taken for a path
        raise RunError(f"{file}: damaged metadata: its recipe is a {type(content['recipe']).__name__}")
    try:
        resolved = resolve(content["recipe"])
    except AgblocksError as error:
        raise RunError(f"{file}: its recipe does not resolve here, where agblocks is {_version()} "
                       f"(it was written by {content['agblocks']}):\n{error}") from None  # fmt: skip
    if resolved.digest != content["digest"]:
        raise RunError(
            f"{file}: the digest {str(content['digest'])[:16]} is not that of its recipe, {resolved.digest[:16]}: the "
            f"file was changed, or its blocks are others in agblocks {_version()} than in {content['agblocks']}"
        )
    try:
        construct = Construct.from_dict(content["construct"])
        settings = Settings.from_dict(content["settings"])
        wiring = _read_wiring(content["wiring"])
        members = content["members"]
        if type(members) is not int or not 1 <= members <= 1000:
            raise ValueError(f"members {members!r}")
    except (DataError, AgblocksError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file}: damaged metadata: {error}") from None
    _check_wiring(file, resolved, wiring)
    models = _models(file, resolved, members, tensors)
    return Run(models, construct, wiring, settings, content["metrics"], content["data"], content["agblocks"])


def _file(path: str | Path) -> Path:
    file = Path(path)
    return file if file.suffix == ".safetensors" else file / FILE


def _read(file: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        started = (file.parent / "started.json").is_file()
        hint = "; it was started but not finished: `agblocks fit ... --resume` goes on" if started else ""
        raise RunError(f"{file.parent}: there is no finished run here (no {file.name}){hint}")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if FORMAT not in metadata:
                found = ", ".join(sorted(metadata)) or "nothing"
                raise RunError(f"{file}: not a run of agblocks: its metadata hold {found}, wanted {FORMAT!r}")
            return metadata[FORMAT], {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{file}: damaged, or no safetensors file: {error}") from None


def _content(file: Path, text: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged metadata: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{file}: damaged metadata: a {type(content).__name__}")
    if content.get("version") != VERSION:
        raise RunError(
            f"{file}: format {content.get('version')!r}; agblocks {_version()} reads {VERSION}: "
            "take the version that wrote it"
        )
    if odd := sorted(set(content) ^ {*_KEYS, "version", "weights_sha256", "metadata_sha256"}):
        raise RunError(f"{file}: damaged metadata: {', '.join(odd)} missing or unknown")
    if content["metadata_sha256"] != _metadata_sum(content):
        raise RunError(f"{file}: the metadata are not what was written (their sha256 differs): damaged or changed")
    if content["weights_sha256"] != weights_sum(tensors):
        raise RunError(f"{file}: the weights are not what was written (their sha256 differs): damaged or changed")
    return content


def _read_wiring(values: Mapping[str, Any]) -> Wiring:
    """Of measured sequences, or of windows of a genome."""
    from .tracks.wiring import TrackWiring

    return TrackWiring.from_dict(values) if "layouts" in values else Wiring.from_dict(values)


def _check_wiring(file: Path, resolved: Resolved, wiring: Wiring) -> None:
    """Every head and input that the wiring names is the model's, and every column is there."""
    inputs = [wiring.dna, *(n for n in [wiring.reverse] if n is not None), *(n for n, _ in wiring.constants)]
    needed = {name for name, info in resolved.inputs.items() if not info.optional}
    if len(set(inputs)) < len(inputs) or not needed <= set(inputs) <= set(resolved.inputs):
        raise RunError(f"{file}: damaged metadata: inputs {inputs}, the model has {list(resolved.inputs)}")
    if not wiring.targets:
        raise RunError(f"{file}: damaged metadata: no target")
    if wiring.on_tracks:
        wiring.check(resolved)
        return
    for target in wiring.targets:
        if target.head not in resolved.heads:
            raise RunError(f"{file}: damaged metadata: no head {target.head!r}; {near(target.head, resolved.heads)}")
        info = resolved.info(target.head)
        if len(info.axes) != 2 or not isinstance(info.axes[1], int) or not 0 <= target.column < info.axes[1]:
            raise RunError(f"{file}: damaged metadata: column {target.column} of head {target.head!r} {info.shape}")


def _models(file: Path, resolved: Resolved, members: int, tensors: dict[str, Tensor]) -> tuple[Model, ...]:
    """The members with their weights. Names and shapes are compared before any memory is taken for the model."""
    try:
        wanted = state(attached(build(resolved, device="meta")))
    except AgblocksError as error:
        raise RunError(
            f"{file}: its adapters cannot be attached here, where agblocks is {_version()}: {error}"
        ) from None
    names = {f"{member}/{name}": value for member in range(members) for name, value in wanted.items()}
    problems = [f"tensor {name!r} is missing" for name in names if name not in tensors]
    problems += [f"tensor {name!r} is unknown; {near(name, names)}" for name in tensors if name not in names]
    for name, value in names.items():
        found = tensors.get(name)
        if found is not None and (found.shape != value.shape or found.dtype != value.dtype):
            problems.append(f"tensor {name!r} is {_kind(found)}, but the recipe's model has {_kind(value)}")
    if problems:
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise RunError(f"{file}: its tensors are not those of its recipe:\n  " + "\n  ".join(problems[:10]) + more)
    models = []
    for member in range(members):
        model = attached(build(resolved, seed=0))
        take(model, {name: tensors[f"{member}/{name}"] for name in wanted})
        models.append(model.eval())
    return tuple(models)


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def weights_sum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        if value.numel():
            octets: Any = value.reshape(-1).view(torch.uint8).numpy()
            digest.update(octets)
    return digest.hexdigest()


def _metadata_sum(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "metadata_sha256"}
    return hashlib.sha256(_json(rest, sort=True).encode()).hexdigest()


def _json(value: Any, sort: bool = False) -> str:
    return json.dumps(value, sort_keys=sort, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no place in a run's metadata")


def _version() -> str:
    from .. import __version__

    return __version__
