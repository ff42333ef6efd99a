"""Adapters by forward hooks: any model adapted without a change to its names, classes and tensors."""

from __future__ import annotations

import agblocks.adapters.kinds  # noqa: F401 - the folder first: imported later, it would replace the function of its name

from ..graph.adapter_kinds import Kind, adapter, kinds
from ..graph.adapter_spec import AdapterSpec
from .adapted import Adapted, adapt
from .adapter import Adapter, Phase
from .affine import Affine
from .bank import AdapterBank
from .composition import Average, BatchSplit, Composition, Fuse, Parallel, Split, Stack
from .eject import eject
from .errors import AdapterError
from .peft_layout import export_peft, import_peft
from .place import Place
from .quantize import Quantized, quantize
from .store import load as load_adapter

__all__ = [
    "Adapted", "Adapter", "AdapterBank", "AdapterError", "AdapterSpec", "Affine", "Average", "BatchSplit",
    "Composition", "Fuse", "Kind", "Parallel", "Phase", "Place", "Quantized", "Split", "Stack", "adapt", "adapter",
    "eject", "export_peft", "import_peft", "kinds", "load_adapter", "quantize",
]  # fmt: skip
