"""Let timm, lightning, torchmetrics and peft be imported beside a CPU build of torch.

They import torchvision, which pip gets from PyPI as a wheel with CUDA operators. Beside a CPU torch its library of
operators doesn't load, and the import then fails with `operator torchvision::nms does not exist`. `mend()` declares the
missing operators, which nothing of ours calls, so that the import passes. Nothing is done where torchvision works, or
is not there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

_MISSING = "operator torchvision::nms does not exist"
_DECLARED = ("nms", "qnms")
_library = None  # kept: what it declares goes when it does


def mend() -> None:
    """To be called before timm, lightning, torchmetrics or peft is imported. Cheap from the second time on."""
    global _library
    if _library is not None or "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _DECLARED:
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")
