"""Training of models on measured sequences: fit, evaluate, predict, and the run folder that holds it all.

    from agblocks.training import Settings, fit, load_run, predict
    run = fit("mpra_small", table, splits, Settings(epochs=30), "run/")
    predict(load_run("run/"), read_sequences("designs.fa"))

Lightning, scikit-learn and matplotlib are imported by the functions that use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Evaluation": "evaluate",
    "Run": "run",
    "RunError": "errors",
    "Score": "metrics",
    "Settings": "settings",
    "crossval": "crossval",
    "evaluate": "evaluate",
    "fit": "fit",
    "fit_ridge": "ridge",
    "load_run": "run",
    "predict": "predict",
    "read_data": "sources",
    "save_run": "run",
    "score": "metrics",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # `fit`, `evaluate`, ... are also modules: the function takes the name once it is asked for.
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
