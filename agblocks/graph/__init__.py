"""Recipe text to model. What block authors need is here; resolving and building load on demand."""

from ..errors import Misfit
from .block import Block, Head, reset_parameters
from .nodes import Edge, Nodes, Pyramid
from .registry import composite, register

__all__ = ["Block", "Edge", "Head", "Misfit", "Nodes", "Pyramid", "composite", "register", "reset_parameters"]
