"""Names of chromosomes that mean the same: `chrIV` and `IV`, `chrM` and `MT`, and those of a file of one's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ..errors import DataError, near

_MITOCHONDRION = frozenset({"m", "mt", "mito", "mitochondrion"})


class ChromosomeNames:
    """Finds a chromosome under the name that a file has for it.

    A name fits itself; then what a row of `aliases` calls the same; then what differs by `chr` in front alone (`chrIV`,
    `IV`; `Chr1`, `1`), and the names of the mitochondrion (M, MT, Mito, mitochondrion). Roman numbers are not taken for
    Arabic ones: X is a chromosome of its own in most genomes.
    aliases: sets of names that mean one chromosome.
    Errors: `DataError` for a name in two sets.
    """

    def __init__(self, aliases: Iterable[Collection[str]] = ()):
        self.aliases = tuple(tuple(dict.fromkeys(names)) for names in aliases)
        self._set: dict[str, int] = {}
        for number, names in enumerate(self.aliases):
            for name in names:
                if name in self._set:
                    raise DataError(f"the chromosome name {name!r} stands in two sets of names; wanted it in one")
                self._set[name] = number

    @classmethod
    def read(cls, path: str | Path) -> ChromosomeNames:
        """From a file: a line a chromosome, its names apart by tabs (UCSC's chromAlias.txt); `#` begins a comment.

        Errors: `DataError` with file and line for a line of one name, or a name that was there before.
        """
        found: list[list[str]] = []
        before: dict[str, int] = {}
        for number, line in enumerate(_lines(Path(path)), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            names = [name.strip() for name in line.rstrip("\n").split("\t") if name.strip()]
            if len(names) < 2:
                raise DataError(f"{path}, line {number}: found one name {names}; wanted at least two, apart by tabs")
            for name in dict.fromkeys(names):
                if name in before:
                    raise DataError(f"{path}, line {number}: {name!r} was there before, in line {before[name]}")
                before[name] = number
            found.append(names)
        return cls(found)

    def find(self, name: str, there: Collection[str]) -> str | None:
        """What of `there` means this chromosome; None if nothing does.

        Errors: `DataError` if two do.
        """
        if name in there:
            return name
        own = self._set.get(name)
        for fits in (lambda o: own is not None and self._set.get(o) == own, lambda o: _key(o) == _key(name)):
            found = [other for other in there if fits(other)]
            if len(found) > 1:
                raise DataError(
                    f"chromosome {name!r} could be {' or '.join(map(repr, found))}; a file of names says which"
                )
            if found:
                return found[0]
        return None

    def want(self, name: str, there: Collection[str], where: str) -> str:
        """As `find`, but what is missing is an error. Errors: `DataError` with `where`, and names that are near."""
        found = self.find(name, there)
        if found is None:
            raise DataError(f"{where}: there is no chromosome {name!r}; {near(name, list(there))}")
        return found


def _key(name: str) -> str:
    """What is the same for names that differ by convention alone."""
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return "m" if bare.lower() in _MITOCHONDRION else bare


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
