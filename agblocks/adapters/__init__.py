"""Adapters by forward hooks: any model adapted without a change to its names, classes and tensors."""

from __future__ import annotations

from ..graph import adapter_kinds
from ..graph.adapter_kinds import Kind
from ..graph.adapter_spec import AdapterSpec
from .adapted import Adapted, adapt
from .adapter import Adapter, Phase
from .affine import Affine
from .bank import AdapterBank
from .composition import Average, BatchSplit, Composition, Fuse, Parallel, Split, Stack
from .eject import eject
from .errors import AdapterError
from .files.peft_layout import export_peft, import_peft
from .files.store import load as load_adapter
from .nf4.quantize import Quantized, quantize
from .place import Place

# The module of that name is imported by now, and so cannot take the function's place later.
adapter, kinds = adapter_kinds.adapter, adapter_kinds.kinds

__all__ = [
    "Adapted", "Adapter", "AdapterBank", "AdapterError", "AdapterSpec", "Affine", "Average", "BatchSplit",
    "Composition", "Fuse", "Kind", "Parallel", "Phase", "Place", "Quantized", "Split", "Stack", "adapt", "adapter",
    "eject", "export_peft", "import_peft", "kinds", "load_adapter", "quantize",
]  # fmt: skip
