"""DeepSTARR (de Almeida et al.): Keras weights in HDF5.

Batch norms have no names of their own and are counted in their order: see `hdf5_file`. Our `vector.flatten` has Keras's
order, channels innermost, so that the first dense layer needs no permutation.
"""

from __future__ import annotations

from .mapping import Leaves, Map, Node

CONV: Leaves = {"weight": ("kernel", "k i o -> o i k"), "bias": "bias"}
DENSE: Leaves = {"weight": ("kernel", "i o -> o i"), "bias": "bias"}
NORM: Leaves = {
    "weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance",
    "num_batches_tracked": "num_batches_tracked",
}  # fmt: skip

DEEPSTARR = Map(
    "deepstarr-keras",
    (
        Node("encoder.stage1", "conv.stem", "", {
            "conv": ("Conv1D_1st", CONV), "norm": ("batch_normalization_1", NORM),
        }),
        Node("encoder.stage{i}", "conv.stem", "", {
            "conv": ("Conv1D_{i}", CONV), "norm": ("batch_normalization_{i}", NORM),
        }),
        Node("dense{i}", "vector.dense", "", {
            "linear": ("Dense_{i}", DENSE), "norm": ("batch_normalization_{i+4}", NORM),
        }),
        Node("dev", "head.vector", "Dense_Dev", {"linear": ("", DENSE)}),
        Node("hk", "head.vector", "Dense_Hk", {"linear": ("", DENSE)}),
    ),
    assumed=(
        "layer names of the published notebook (Conv1D_1st, Conv1D_2, ..., Dense_1, Dense_2, Dense_Dev, Dense_Hk); "
        "no published file was read",
    ),
)  # fmt: skip
