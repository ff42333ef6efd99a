"""Where a public file comes from: a folder of the user's first, then pooch's cache, then the network."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError, near

FOLDER = "AGBLOCKS_DATA"
"""The environment variable that names a folder with one folder for each data set."""

TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and between two pieces: an unreachable network is an error, never a wait."""


@dataclass(frozen=True)
class PublicFile:
    """A file at a pinned address: repository @ commit : path, its sha256, and its name in our folders."""

    name: str
    sha256: str
    repository: str
    commit: str
    path: str

    @property
    def url(self) -> str:
        """The address of exactly this version."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"


@dataclass(frozen=True)
class PublicData:
    """A public data set: what it is, what it needs, whom to cite, and (`cautions`) how it misleads."""

    name: str
    title: str
    files: tuple[PublicFile, ...]
    licence: str
    citation: str
    cautions: str

    def file(self, name: str) -> PublicFile:
        """A file by name. Errors: `DataError` with near names."""
        for file in self.files:
            if file.name == name:
                return file
        raise DataError(f"{self.name}: there is no file {name!r}; {near(name, [f.name for f in self.files])}")


def fetch(data: PublicData, name: str, *, download: bool = True) -> Path:
    """A verified local copy of one file of a data set.

    Looks in `$AGBLOCKS_DATA/<data set>/<file>`, then in pooch's cache for this user, then downloads it there
    (unless `download` is off). The sha256 is checked wherever the file lies.
    Errors: `DataError` naming what was tried: a local file with another content, no network, a changed file.
    """
    file = data.file(name)
    tried = [f"{FOLDER} is not set"]
    if folder := os.environ.get(FOLDER):
        local = Path(folder) / data.name / name
        if local.is_file():
            _verify(local, file)
            return local
        tried = [f"{FOLDER}: there is no {local}"]
    import pooch  # type: ignore[import-untyped, unused-ignore]

    cache = Path(pooch.os_cache("agblocks")) / data.name
    cached = cache / f"{file.sha256[:8]}-{name}"
    if cached.is_file() and _sha256(cached) == file.sha256:
        return cached
    tried.append(f"cache: there is no {cached}" if not cached.exists() else f"cache: {cached} is damaged")
    if not download:
        raise DataError(f"{data.name}: {name} is not on this machine, and downloading is off", tried)
    try:
        found = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=cached.name,
            path=cache,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )
    except Exception as error:  # requests', urllib3's, pooch's and the system's: all mean "could not be had"
        tried.append(f"download: {file.url}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        raise DataError(f"{data.name}: {name} cannot be had", tried) from None
    return Path(found)


def _verify(path: Path, file: PublicFile) -> None:
    found = _sha256(path)
    if found != file.sha256:
        raise DataError(f"{path}: found sha256 {found}, wanted {file.sha256} ({file.url})")


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
