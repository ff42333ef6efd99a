"""Where recipes are found: by path, then by name among the shipped ones, and never outside the named folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import Problem, RecipeError, near, shown
from .source import Tree, read_file


@dataclass(frozen=True)
class Source:
    """A recipe's tree, and the folder that its `base` and `recipe` may read from (None: shipped names only)."""

    tree: Tree
    label: str
    file: Path | None = None
    root: Path | None = None


@cache
def shipped_folder(inside: str = "recipes", beside: str = "recipes") -> Path:
    """What comes with the package, recipes by default: inside it when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / inside
    return installed if installed.is_dir() else package.parent / beside


@cache
def shipped() -> dict[str, Path]:
    """Every shipped recipe by name: `alphagenome`, `ablations/no_pair_map`, and by last part where that is one."""
    folder = shipped_folder()
    files = sorted(folder.rglob("*.yaml"))
    names = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    lasts = [file.stem for file in files]
    return {**{file.stem: file for file in files if lasts.count(file.stem) == 1}, **names}


def find(name: str | Path) -> Source:
    """The recipe a user names: a path, else a shipped name."""
    path = Path(name)
    if _is_file(path):
        return _open(path.resolve(), str(name), path.resolve().parent)
    if str(name) in shipped():
        return _shipped(str(name))
    looks_like_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    kind = "file" if looks_like_path else "shipped recipe"
    raise RecipeError([Problem(f"there is no {kind} {shown(str(name))}; {near(str(name), shipped())}")])


def find_from(name: str, source: Source) -> Source:
    """The recipe that another one names in `base` or `recipe`. Raises LookupError with the reason."""
    if source.root is not None and source.file is not None:
        folder = source.file.parent
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if _is_file(candidate):
                candidate = candidate.resolve()
                if not candidate.is_relative_to(source.root):
                    raise LookupError(f"{name!r} lies outside {source.root.name!r}, the folder of the recipe you named")
                return _open(candidate, str(candidate.relative_to(source.root)), source.root)
    if name in shipped():
        return _shipped(name)
    raise LookupError(
        f"there is no recipe {shown(name)} beside this one or among the shipped ones; {near(name, shipped())}"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a NUL in it
        return False


def _shipped(name: str) -> Source:
    file = shipped()[name]
    return _open(file, f"recipes/{file.relative_to(shipped_folder()).as_posix()}", shipped_folder())


def _open(file: Path, label: str, root: Path) -> Source:
    return Source(read_file(file, label), label, file, root)
