"""Published and saved weights: loaded into models by declarative maps, strictly, leanly, and all or nothing."""

from .convert import convert
from .errors import WeightsError
from .formats import FORMATS
from .load import load_weights
from .place import materialise
from .report import Report

__all__ = ["FORMATS", "Report", "WeightsError", "convert", "load_weights", "materialise"]
