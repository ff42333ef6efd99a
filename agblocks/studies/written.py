"""What the files of a study's folder say: their form, checked when they are read."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

CELL = re.compile(r"[0-9a-f]{16}\Z")


class Written(BaseModel):
    """A file of a study's folder; what newer versions say beside is left aside."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Axis(Written):
    """What varies: a name, and its options as text in the order of the study's file."""

    name: str
    options: tuple[str, ...]


class Entry(Written):
    """One place of the plan: which cell, its labels, and of which control it is."""

    cell: str = Field(pattern=CELL.pattern.replace(r"\Z", "$"))
    labels: dict[str, str]
    control: str | None = None


class Layout(Written):
    """Which axis goes where in the figures; axes named in none of them are panels."""

    x: str | None = None
    line: str | None = None
    panel: tuple[str, ...] = ()
    over: tuple[str, ...] = ("fold", "seed")

    @field_validator("panel", "over", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """One axis need not be a list."""
        return [value] if isinstance(value, str) else value or []


class Planned(Written):
    """plan.json."""

    format: Literal["agblocks-study"]
    version: Literal[1]
    name: str
    about: str = ""
    digest: str = ""
    command: str = ""
    agblocks: str = ""
    axes: tuple[Axis, ...]
    entries: tuple[Entry, ...]
    reference: dict[str, str] | None = None
    report: Layout = Layout()
    similarity: tuple[str, ...] = ()


class Scored(Written):
    """`training.metrics.Score` as JSON: numbers that do not exist are null, and `reason` says why."""

    target: str
    n: int
    pearson: float | None
    spearman: float | None
    mse: float | None
    pearson_interval: tuple[float | None, float | None] = (None, None)
    spearman_interval: tuple[float | None, float | None] = (None, None)
    mse_interval: tuple[float | None, float | None] = (None, None)
    reason: str = ""


class Result(Written):
    """result.json."""

    format: Literal["agblocks-cell"]
    version: Literal[1]
    cell: str
    seconds: float | None = None
    peak_mb: float | None = None
    rows: dict[str, int] = {}
    scores: dict[str, tuple[Scored, ...]] = {}
    chosen: dict[str, Any] = {}
    parameters: dict[str, int | None] = {}
    recipe: str | None = None
    weights: str | None = None
    cost: str | None = None
    command: str = ""
    agblocks: str = ""
    host: str = ""


class Failed(Written):
    """failed.json."""

    cell: str
    error: str
    where: str | None = None
    traceback: str = ""


class Cost(Written):
    """out/costs/<key>.json: counted and measured; what could not be measured is null."""

    parameters: float | None = None
    macs_per_base: float | None = None
    bases: float | None = None
    latency_1_ms: float | None = None
    latency_32_ms: float | None = None
    peak_mb: float | None = None
    quartiles: dict[str, Any] = {}
    threads: int | None = None
    device: str = ""


class Similarity(Written):
    """out/similarity/<name>.json: a matrix with labels; a cell that could not be computed is null."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    sequences: int | None = None
    about: str = ""

    def model_post_init(self, _: Any) -> None:
        """The matrix has the size that its labels say."""
        sizes = {len(line) for line in self.matrix}
        if len(self.matrix) != len(self.rows) or sizes - {len(self.columns)}:
            raise ValueError(f"a matrix of {len(self.matrix)} x {sorted(sizes)} for {len(self.rows)} x "
                             f"{len(self.columns)} labels")  # fmt: skip
