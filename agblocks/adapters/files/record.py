"""An adapter file: tensors, and beside them, as JSON, everything that is checked before they are used.

One safetensors file. Nothing in it is code, and it is read as if a stranger had written it: sizes, depth and form are
checked before the content is looked at, and checksums tell a file that was cut or changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ...files import beside, flush
from ..errors import AdapterFileError
from .fingerprint import digest

FORMAT = "agblocks-adapter"
VERSION = 1
LARGEST = 32 * 2**20  # characters of metadata; AlphaGenome with every linear map adapted has some 100,000
DEEPEST = 32  # of brackets inside brackets
LARGEST_WEIGHT = 1e6  # of an adapter among others
_PIECES = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]')

#: types by their names in safetensors files
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

Told = tuple[str, tuple[int, ...]]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModuleRecord(_Data):
    """A module of the base that carries adapters: its class, its own tensors, its channels, its weights' sha256."""

    type: str
    tensors: dict[str, Told]
    place: tuple[int | None, int | None, int]  # channels it reads and gives, and where they stand
    sha256: str


class RecipeRecord(_Data):
    """The recipe of the base: its digest, and those of the edges that adapted nodes make."""

    name: str
    digest: str
    edges: dict[str, str]


class Record(_Data):
    """What an adapter file says of itself.

    specs, sites: each spec as a recipe writes it, and the modules that it sits on. modules: those modules.
    train, statistics: names of the base's own parameters and norms' statistics in the file.
    weight, trains, composition: as of `bank.weigh`, `bank.train_only`, `bank.activate`. norms: as of `adapt`.
    recipe: of a base with one. structure: sha256 of names and shapes of all of the base's tensors.
    fingerprint: sha256 of the weights that the adapters stand on. quantised: those not dense, and their class.
    """

    version: Literal[1]
    name: str = Field(pattern=r"^[^\W\d]\w*$", max_length=200)
    specs: list[dict[str, Any]] = Field(max_length=10_000)
    sites: list[list[str]]
    modules: dict[str, ModuleRecord]
    train: list[str]
    statistics: list[str]
    weight: float = Field(ge=-LARGEST_WEIGHT, le=LARGEST_WEIGHT)
    trains: bool
    composition: dict[str, Any] | None
    norms: Literal["frozen", "track"]
    recipe: RecipeRecord | None
    structure: str
    fingerprint: str
    quantised: dict[str, str]
    dtypes: list[str]
    licence: str
    note: str
    torch: str
    agblocks: str
    tensors_sha256: str
    metadata_sha256: str


def write(path: str | Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> Path:
    """Write an adapter file beside its place and rename it: it is there whole or not at all."""
    from safetensors.torch import save

    file = Path(path)
    if file.suffix != ".safetensors" or file.is_dir():
        raise AdapterFileError(f"{file}: an adapter is saved as one file, {file.name or 'adapter'}.safetensors")
    said = {**content, "version": VERSION, "tensors_sha256": digest(tensors)}
    said["metadata_sha256"] = _sum(said)
    _validated(said, f"{file}: cannot be saved")
    text = canonical(said)
    if len(text) > LARGEST:
        raise AdapterFileError(f"{file}: its description takes {len(text):,} characters, {LARGEST:,} are read")
    octets = save(dict(tensors), metadata={FORMAT: text})  # one entry: several would come in any order
    write_whole((file, octets))
    return file


def write_whole(*files: tuple[Path, bytes]) -> None:
    """Write files beside their places, flush them to the disk, and only then rename them.

    Of several, the last tells what the others mean: its old version goes first, so that none is read with others' data.
    """
    try:
        with ExitStack() as renamed:  # the last to come in is renamed first
            for file, octets in reversed(files):
                part = renamed.enter_context(beside(file))
                part.write_bytes(octets)
                flush(part)
            if len(files) > 1:
                files[-1][0].unlink(missing_ok=True)
    except OSError as error:
        at = error.filename2 or file  # what was renamed onto, or else what was being written
        raise AdapterFileError(f"{at}: cannot be written: {error.strerror or error}") from None


class Reader:
    """An adapter file that is open: its record, checked, and types and shapes of its tensors before any is read."""

    def __init__(self, path: str | Path):
        from safetensors import SafetensorError, safe_open

        self.path = path
        if Path(path).is_dir():
            raise AdapterFileError(f"{path}: is a folder; for peft's layout there is import_peft")
        try:
            self._file = safe_open(path, framework="pt").__enter__()
            metadata = self._file.metadata() or {}
            keys = list(self._file.keys())
        except OSError as error:
            raise AdapterFileError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
            raise AdapterFileError(f"{path}: cut short, damaged, or no safetensors file: {error}") from None
        if FORMAT not in metadata:
            peft = any(".lora_" in key or ".ia3_" in key for key in keys)
            hint = "; it looks like peft's layout, for which there is import_peft" if peft else ""
            found = ", ".join(sorted(metadata)[:6]) or "nothing"
            raise AdapterFileError(f"{path}: no adapter of agblocks: its metadata hold {found}, not {FORMAT!r}{hint}")
        self.record = _record(path, metadata[FORMAT])
        self.shapes = {key: self._told(key) for key in keys}

    def _told(self, key: str) -> Told:
        part = self._file.get_slice(key)
        dtype = str(part.get_dtype())
        return DTYPES.get(dtype, dtype), tuple(part.get_shape())

    def read(self) -> dict[str, Tensor]:
        """Every tensor, once their sha256 is found to be what was written."""
        tensors = {key: self._file.get_tensor(key) for key in self.shapes}
        if digest(tensors) != self.record.tensors_sha256:
            raise AdapterFileError(f"{self.path}: its tensors are not what was written (their sha256 differs)")
        return tensors

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)


def read_record(path: str | Path) -> Record:
    """What an adapter file says of itself, its tensors unread. Errors: `AdapterFileError`."""
    with Reader(path) as opened:
        return opened.record


def _record(path: str | Path, text: str) -> Record:
    said = parse(path, text)
    if type(said.get("version")) is not int or said["version"] != VERSION:
        raise AdapterFileError(
            f"{path}: version {said.get('version')!r} of the format, this agblocks reads {VERSION}; it was written by "
            f"agblocks {str(said.get('agblocks'))[:40]}"
        )
    if said.get("metadata_sha256") != _sum(said):
        raise AdapterFileError(f"{path}: its metadata are not what was written (their sha256 differs)")
    return _validated(said, f"{path}: damaged metadata")


def _validated(said: Mapping[str, Any], wrong: str) -> Record:
    try:
        return Record.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AdapterFileError(f"{wrong}: {where}: {first['msg']}") from None


def parse(path: str | Path, text: str) -> dict[str, Any]:
    """A JSON object that a stranger may have written: of bounded size and depth, with numbers that are numbers."""
    if len(text) > LARGEST:
        raise AdapterFileError(f"{path}: metadata of {len(text):,} characters, {LARGEST:,} are read")
    if (deep := _depth(text)) > DEEPEST:
        raise AdapterFileError(f"{path}: metadata nested {deep} deep, {DEEPEST} are read")
    try:
        said = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise AdapterFileError(f"{path}: damaged metadata: {error}") from None
    if not isinstance(said, dict):
        raise AdapterFileError(f"{path}: damaged metadata: a {type(said).__name__}")
    return said


def _depth(text: str) -> int:
    deep = most = 0
    for piece in _PIECES.finditer(text):
        if piece[0] in "[{":
            deep += 1
            most = max(most, deep)
        elif piece[0] in "]}":
            deep -= 1
    return most


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _sum(said: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in said.items() if key != "metadata_sha256"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON of one form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
