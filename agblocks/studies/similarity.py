"""How alike stages represent the same sequences: linear CKA, unbiased, over minibatches.

Features of n sequences become their products with one another, (n, n), so that stages of any width compare, of two
models or of one. Linear CKA is the correlation of such matrices: 1 where features agree up to turning and one scale,
about 0 where they have nothing in common. It is invariant to adding a constant to a feature, so features count as
centred on the sequences at hand.

Sources: Kornblith et al. 2019 (CKA); Song et al. 2012 (unbiased HSIC); Nguyen et al. 2021 (minibatches).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import AgblocksError, near
from ..training.tuning.choose import graph_of

LEAST = 4  # rows: the unbiased estimate divides by n - 3
Pooled = Literal["mean", "flatten"]
POOLS = ("mean", "flatten")


class SimilarityError(AgblocksError):
    """Features that cannot be compared; the message says why."""


def cka(x: Any, y: Any) -> float:
    """Unbiased linear CKA of two features of the same rows, all at once; nan where one of them does not vary.

    Unbiased means 0 on average for features that have nothing in common, however many features there are; so it may
    come out a little below 0. It is never beyond -1 to 1.
    Shapes: x (n, ...), y (n, ...), numbers of any type; what follows the rows is flattened.
    Errors: `SimilarityError` for fewer than 4 rows, or rows that differ in number.
    """
    made = Accumulator(1, 1)
    made.add([torch.as_tensor(x)], [torch.as_tensor(y)])
    return float(made.matrix()[0, 0])


class Accumulator:
    """CKA of every pair of `rows` and `columns` features, fed batch by batch in one pass.

    Each batch gives unbiased estimates of HSIC; their means over batches (weighed by rows) are unbiased as well, and
    make the CKA. With one batch of everything this is `cka`. Batches should be of one size as far as possible, large
    (256 or more) rather than small, and shuffled: a batch of alike sequences says little.

    Costs: of a batch of n rows n * n numbers for each feature, and n * n * width multiply-adds to make them.
    """

    def __init__(self, rows: int, columns: int):
        self.rows, self.columns = rows, columns
        self.sequences = 0
        self.left_out = 0
        self._both = np.zeros((rows, columns))
        self._row, self._column = np.zeros(rows), np.zeros(columns)

    def add(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """One batch: features of the same n sequences, (n, ...) each.

        A batch of fewer than 4 gives no estimate: it is counted in `left_out`, and an error where it is the first.
        Errors: `SimilarityError` for numbers of rows or features that do not fit, or values that are not finite.
        """
        if (len(rows), len(columns)) != (self.rows, self.columns):
            raise SimilarityError(f"{len(rows)} by {len(columns)} features, wanted {self.rows} by {self.columns}")
        sizes = {len(f) for f in (*rows, *columns)}
        if len(sizes) > 1:
            raise SimilarityError(
                f"features of {', '.join(map(str, sorted(sizes)))} rows; wanted the same rows of each"
            )
        n = sizes.pop()
        if n < LEAST:
            if not self.sequences:
                raise SimilarityError(f"{n} sequences; an unbiased estimate wants at least {LEAST}")
            self.left_out += n
            return
        left = torch.stack([_centred(f) for f in rows]).flatten(1)
        right = left if columns is rows else torch.stack([_centred(f) for f in columns]).flatten(1)
        # U-centred matrices are vectors of a space with a scalar product: so no CKA is beyond 1.
        scale = 1 / (n - 3)  # n rows' weight times 1 / (n (n - 3))
        self._both += scale * (left @ right.T).cpu().numpy()
        self._row += scale * (left**2).sum(1).cpu().numpy()
        self._column += scale * (right**2).sum(1).cpu().numpy()
        self.sequences += n

    def matrix(self) -> NDArray[np.float64]:
        """The CKA of each pair. Shapes: (rows, columns), nan where a feature does not vary."""
        below = np.sqrt(np.outer(self._row, self._column))
        made = np.full(self._both.shape, np.nan)
        return np.clip(np.divide(self._both, below, out=made, where=below > 0), -1, 1)


def _centred(features: Tensor) -> Tensor:
    """The U-centred matrix of products of rows (Székely & Rizzo 2014), float64. Shapes: (n, ...) -> (n, n).

    Its scalar product with another one, over n (n - 3), is the unbiased HSIC of Song et al. 2012.
    """
    raw = features.detach().reshape(len(features), -1).double()
    if not torch.isfinite(raw).all():
        raise SimilarityError("features that are not finite")
    x = raw - raw.mean(0)
    # Features that never vary, but for rounding of their own type, are nothing.
    exact = torch.finfo(features.dtype if features.dtype.is_floating_point else torch.float64).eps
    if x.abs().max() <= 8 * exact * raw.abs().max():
        x = torch.zeros_like(x)
    n = len(x)
    products = (x @ x.T).fill_diagonal_(0)
    sums = products.sum(1)
    made = products - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return made.fill_diagonal_(0)


def compare_models(
    models: Mapping[str, nn.Module],
    taps: Sequence[str] | Mapping[str, Sequence[str]],
    batches: Iterable[Tensor | Mapping[str, Tensor]],
    *,
    pool: Pooled = "mean",
    about: str = "",
) -> dict[str, dict[str, Any]]:
    """CKA between the stages of every two models, and of each model's stages with one another, in one pass.

    models: by name; each sees every batch once, in evaluation. taps: edges to compare (`encoder.stage3`), the same of
    all models or by model. batches: one-hot DNA (batch, 4, length), or all inputs by name; a model takes those it has.
    pool: `mean` compares what a head reads that pools over positions, whatever stands where; `flatten` compares
    position by position, as CKA of images does, and wants sequences of one length in a batch.

    Gives for each pair a study's similarity file: title, rows, columns, matrix (None where a stage does not vary),
    sequences, about. Keys: the model's name, or `one vs other`.
    Errors: `SimilarityError` for unknown taps, no batch, or too few sequences.
    Use when: asking what a training, a seed, an architecture or a species changes, and from which stage on.
    """
    if pool not in POOLS:
        raise SimilarityError(f"pool {pool!r}; {near(pool, POOLS)}")
    names = list(models)
    wanted = {name: list(taps[name] if isinstance(taps, Mapping) else taps) for name in names}
    for name in names:
        known = graph_of(models[name]).resolved
        for tap in wanted[name]:
            known.edge(tap)
    pairs = [(one, other) for i, one in enumerate(names) for other in names[i:]]
    made = {pair: Accumulator(len(wanted[pair[0]]), len(wanted[pair[1]])) for pair in pairs}
    for batch in batches:
        given = {"dna": batch} if isinstance(batch, Tensor) else dict(batch)
        seen = {name: _features(models[name], wanted[name], given, pool) for name in names}
        for (one, other), accumulator in made.items():
            accumulator.add(seen[one], seen[other])
    found = {}
    for (one, other), accumulator in made.items():
        if not accumulator.sequences:
            raise SimilarityError("no batch of sequences was given")
        key = one if one == other else f"{one} vs {other}"
        found[key] = as_file(key, wanted[one], wanted[other], accumulator, about or _about(pool))
    return found


def compare_features(
    title: str,
    rows: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    batch: int = 512,
    seed: int = 0,
    about: str = "",
) -> dict[str, Any]:
    """CKA of every pair of features that are there already, as a similarity file.

    rows, columns: by label, features of the same n sequences in the same order, (n, ...) each. They are shuffled and
    compared in batches of about one size, at most `batch`, or all at once where they are no more.
    Errors: as `Accumulator`.
    Use when: stages were cached, as probes want them.
    """
    made = Accumulator(len(rows), len(columns))
    sizes = {len(values) for values in (*rows.values(), *columns.values())}
    order = np.random.default_rng(seed).permutation(max(sizes, default=0))
    if len(sizes) > 1:
        raise SimilarityError(f"features of {', '.join(map(str, sorted(sizes)))} rows; wanted the same rows of each")
    for some in np.array_split(order, max(1, -(-len(order) // batch))):
        # Rows in order: features may lie on disk.
        at = np.sort(some)
        left, right = ([torch.as_tensor(np.asarray(v[at])) for v in held.values()] for held in (rows, columns))
        made.add(left, right)
    return as_file(title, list(rows), list(columns), made, about or _about("mean"))


def as_file(
    title: str, rows: Sequence[str], columns: Sequence[str], made: Accumulator, about: str = ""
) -> dict[str, Any]:
    """An accumulator's matrix in the form of out/similarity/<name>.json."""
    matrix = [[None if np.isnan(v) else float(v) for v in row] for row in made.matrix()]
    return {
        "title": title, "rows": list(rows), "columns": list(columns), "matrix": matrix,
        "sequences": made.sequences, "about": about,
    }  # fmt: skip


def _features(model: nn.Module, taps: Sequence[str], given: Mapping[str, Tensor], pool: Pooled) -> list[Tensor]:
    graph = graph_of(model)
    inputs = {name: value for name, value in given.items() if name in graph.resolved.inputs}
    was = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            made = model(**inputs, outputs=list(dict.fromkeys(taps)))
    finally:
        for module, training in was.items():
            module.training = training
    return [made[tap].mean(-1) if pool == "mean" and made[tap].dim() == 3 else made[tap] for tap in taps]


def _about(pool: Pooled) -> str:
    read = "means over positions" if pool == "mean" else "all positions"
    return f"Linear CKA, unbiased, over minibatches; features: {read}, centred on the same sequences."
