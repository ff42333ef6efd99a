"""A study: a file that says what to do with recipes, and what of it varies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import Mark
from ...graph.source import Tree

CONTROLS = ("random", "kmer", "full")

Values = Mapping[str, Tree]  # of a cell, by path


@dataclass(frozen=True)
class Option:
    """One value of an axis: what it is called, and which paths of the cell it sets."""

    label: str
    values: Values
    mark: Mark | None = None

    @property
    def pattern(self) -> str | None:
        """The pattern over edges that it stands for, if it names taps by one."""
        tap = self.values.get("tap")
        return tap.value if tap is not None and isinstance(tap.value, str) and "*" in tap.value else None


@dataclass(frozen=True)
class Axis:
    """What varies: its name, and its options in the file's order."""

    name: str
    options: tuple[Option, ...]
    mark: Mark | None = None


@dataclass(frozen=True)
class Study:
    """A study as it is written: read and checked for its form, nothing looked up yet. Made by `load_study`.

    data: rows by name, in the words of `training.Source` with `construct`, `simulate` and `permute`.
    pretrain: models trained before the cells, by name, as values of a cell; or `weights` from elsewhere.
    base: the values of every cell; axes: what varies, each option setting more of them.
    listed: combinations of labels to do instead of the full grid; an axis that one leaves out gives all of its options.
    controls: which of random, kmer and full stand beside each cell. reference: labels (or a control) to compare with.
    report: which axis is x, line and panel. similarity: matrices of stages. keep: what of a cell stays ("weights").
    resources: what one cell needs (cpus, gpus, memory in GB), for a cluster.
    """

    name: str
    about: str = ""
    data: Mapping[str, Values] = field(default_factory=dict)
    pretrain: Mapping[str, Values] = field(default_factory=dict)
    base: Values = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    listed: tuple[Mapping[str, tuple[str, ...]], ...] | None = None
    controls: tuple[str, ...] = ()
    reference: Mapping[str, str] | None = None
    similarity: Mapping[str, Tree] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    file: Path | None = None
    marks: Mapping[str, Mark | None] = field(default_factory=dict)
    tree: Tree = field(default_factory=lambda: Tree({}))
    command: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder that names of files are relative to."""
        return None if self.file is None else self.file.parent

    @property
    def digest(self) -> str:
        """Of all that the file says, comments and order of keys aside."""
        return hashlib.sha256(json.dumps(self.tree.plain(), sort_keys=True).encode()).hexdigest()[:12]


def label_of(value: Any) -> str:
    """A value as text: itself if it is one, else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
