"""Kinds that share everything but a paper's values."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any


def published(init: Callable[..., None], /, **defaults: Any) -> Any:
    """A constructor with a paper's values as its defaults."""
    assert isinstance(init, types.FunctionType)
    before = init.__kwdefaults__ or {}
    assert before.keys() >= defaults.keys()
    made = types.FunctionType(init.__code__, init.__globals__, init.__name__, init.__defaults__, init.__closure__)
    made.__kwdefaults__ = {**before, **defaults}
    made.__annotations__ = dict(init.__annotations__)
    made.__qualname__, made.__module__ = init.__qualname__, init.__module__
    return made
