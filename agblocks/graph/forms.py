"""What files of ours have in common: findings in place of exceptions, and the simplest forms of a tree."""

from __future__ import annotations

import re

from ..errors import Mark, Problem, near, shown
from .source import Tree


class Findings(list[Problem]):
    """Problems as they are found; `find` adds one."""

    def find(self, message: str, mark: Mark | None, path: str = "", *notes: str) -> None:
        self.append(Problem(message, mark, path, notes))


def mapping(
    tree: Tree, path: str, keys: tuple[str, ...], findings: Findings, whole: str = "a recipe"
) -> dict[str, Tree]:
    """A mapping of known keys; others are told. whole: what the tree is called where `path` is empty."""
    if not tree.is_map:
        findings.find(f"{path or whole} should be a mapping, not {tree.kind}", tree.mark, path)
        return {}
    for key in tree.value:
        if key not in keys:
            where = f"{path}.{key}" if path else key
            findings.find(f"there is no key {shown(key)} here; {near(key, keys)}", tree.key_mark(key), where)
    return {key: child for key, child in tree.value.items() if key in keys}


def entries(tree: Tree | None, path: str, findings: Findings) -> list[tuple[str, Tree, Mark | None]]:
    """A mapping from names of one's own: name, value, and where the name stands."""
    return [(n, t, tree.key_mark(n)) for n, t in named(tree, path, findings)] if tree is not None else []


def named(tree: Tree | None, path: str, findings: Findings) -> list[tuple[str, Tree]]:
    """A mapping from names of one's own."""
    if tree is None:
        return []
    if not tree.is_map:
        findings.find(f"{path} should be a mapping from names, not {tree.kind}", tree.mark, path)
        return []
    return list(tree.value.items())


def texts(tree: Tree | None, path: str, findings: Findings) -> tuple[Tree, ...]:
    """One text or a list of them."""
    if tree is None:
        return ()
    items = tree.value if tree.is_list else [tree]
    for index, item in enumerate(items):
        if not isinstance(item.value, str):
            findings.find(f"{path} lists names or patterns, not {item.kind}", item.mark, f"{path}[{index}]")
    return tuple(item for item in items if isinstance(item.value, str))


def text(tree: Tree | None, path: str, findings: Findings) -> str | None:
    """A word."""
    if tree is None:
        return None
    if not isinstance(tree.value, str) or not re.fullmatch(r"[\w.+-]{1,100}", tree.value):
        findings.find(f"{path} should be a word, not {tree.kind}", tree.mark, path)
        return None
    return tree.value
