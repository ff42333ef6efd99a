"""What a cached feature hangs on, as keys: one for all features of a tap, and one for each sequence.

Everything that changes a feature changes its key, and nothing else does: not the names of nodes, not comments, not
weights above the tap. Left out are the device and the number of threads, which change last bits only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data import Construct
from ...data.sequence import Ambiguous, Codes
from ...graph.model import GraphModel

VERSION = 1
ROW = 16  # bytes of a row's key


def fingerprints(model: GraphModel, edges: Iterable[str]) -> dict[str, str]:
    """For each edge one checksum of what it computes: of blocks, arguments and wiring, and of every tensor before it.

    Tensors go by their place in the block and by their content, nodes by what they are, not by their names.
    Errors: `InputError` for an edge that there is not.
    Costs: every weight before the edges is read once.
    """
    resolved = model.resolved
    known = {name: info.digest for name, info in resolved.inputs.items()}
    asked = tuple(edges)
    for node in resolved.needed(asked):
        own = hashlib.sha256(resolved.edges[node.outputs[0]].digest.encode())
        own.update(_tensors(model.get_submodule(node.name)).encode())
        for port in sorted(node.inputs):
            own.update(f"{port} {known[node.inputs[port]]}\n".encode())
        for index, edge in enumerate(node.outputs):
            known[edge] = hashlib.sha256(f"{own.hexdigest()} {index}".encode()).hexdigest()
    return {name: known[resolved.edge(name)] for name in asked}


def _tensors(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(raw(value).data)
    return digest.hexdigest()


def raw(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor's bytes, row by row. Shapes: any -> (bytes,)."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def document(
    fingerprint: str,
    *,
    pool: str,
    stored: str,
    computed: str,
    construct: Construct,
    ambiguous: Ambiguous = "zeros",
    constants: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What all features of one tap have in common, in words.

    fingerprint: of the tap's edge. stored, computed: types of numbers. constants: values of the inputs other than DNA
    that the tap depends on.
    """
    return {
        "version": VERSION,
        "edge": fingerprint,
        "pool": pool,
        "stored": stored,
        "computed": computed,
        "one_hot": {"channels": "ACGT", "N": "zeros", "ambiguous": ambiguous},
        "construct": construct.to_dict(),
        "constants": dict(sorted((constants or {}).items())),
    }


def space(described: Mapping[str, Any]) -> str:
    """The key of all features of one tap: 32 hexadecimal digits."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def row_keys(codes: Codes, turned: NDArray[np.bool_] | bool) -> list[bytes]:
    """A key for each sequence as the model sees it: its letters, shifted and turned as they are, and its strand.

    Shapes: codes (rows, length) uint8, turned (rows,) or one for all -> rows keys of 16 bytes.
    """
    strands = np.broadcast_to(np.asarray(turned, dtype=np.bool_), (len(codes),)).tolist()
    letters = np.ascontiguousarray(codes, dtype=np.uint8)
    return [
        hashlib.blake2b(row.data, digest_size=ROW, person=b"turned" if strand else b"as it is").digest()
        for row, strand in zip(letters, strands, strict=True)
    ]
