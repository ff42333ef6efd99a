"""Doing cells: what a task asks for, each result written once, each failure with its reason."""

from .perform import perform

__all__ = ["perform"]
