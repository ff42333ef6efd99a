"""Opening what a user names: a file, a folder, or a hub's repository."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import near
from .errors import WeightsError
from .source import Source

SAFE = (".safetensors",)
TORCH = (".pth", ".pt", ".bin", ".ckpt")
KERAS = (".h5", ".hdf5", ".keras_weights")
KINDS = (*SAFE, *TORCH, *KERAS)
INDEX = ".safetensors.index.json"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def opened(source: str | Path, *, revision: str | None = None, file: str | None = None) -> Source:
    """A source of tensors for a path or a hub's repository (`owner/name`). Errors: `WeightsError`."""
    if not isinstance(source, (str, Path)):
        raise WeightsError(f"a source is a path, a hub repository or a state dict, not a {type(source).__name__}")
    path = Path(source).expanduser()
    if path.is_dir():
        return opened_file(_chosen(path, file))
    if path.exists():
        return opened_file(path)
    if isinstance(source, str) and _HUB.fullmatch(source) and not source.endswith(KINDS):
        from .hub import fetched

        found, commit = fetched(source, revision, file)
        made = opened_file(found)
        made.label, made.revision = f"{source}/{found.name}", commit
        return made
    raise WeightsError(f"{source}: there is no such file or folder, and it is no hub repository (owner/name)")


def opened_file(file: Path) -> Source:
    """The reader for a file, by its name and its first bytes."""
    if file.name.endswith(INDEX):
        from .safetensors_file import Shards

        return Shards(file)
    try:
        with open(file, "rb") as handle:
            start = handle.read(8)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or error}") from None
    if file.suffix in KERAS or start == b"\x89HDF\r\n\x1a\n":
        from .hdf5_file import Hdf5File

        return Hdf5File(file)
    if file.suffix in TORCH:
        from .torch_file import TorchFile

        return TorchFile(file)
    if file.suffix in SAFE:
        from .safetensors_file import SafetensorsFile

        return SafetensorsFile(file)
    raise WeightsError(f"{file}: {file.suffix!r} is no kind of file with weights; {near(file.suffix, KINDS)}")


def best(names: list[str], where: str, file: str | None = None) -> str:
    """Of a folder's files the one to load: safetensors before torch before Keras. Errors: `WeightsError`."""
    if file is not None:
        if file not in names:
            raise WeightsError(f"{where}: there is no file {file!r}; {near(file, names)}")
        return file
    for kinds in ((INDEX,), SAFE, TORCH, KERAS):
        found = [name for name in names if name.endswith(kinds)]
        if len(found) > 1:
            several = ", ".join(sorted(found)[:12])
            raise WeightsError(f"{where}: there are {len(found)} files of weights; say which by file=: {several}")
        if found:
            return found[0]
    raise WeightsError(f"{where}: there are no weights; it has {', '.join(sorted(names)[:12]) or 'nothing'}")


def _chosen(folder: Path, file: str | None) -> Path:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    top = [name for name in names if "/" not in name]
    return folder / best(names if file is not None else top, str(folder), file)
