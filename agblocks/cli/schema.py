"""`agblocks schema`: JSON Schema of recipes, for editors."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of recipes over everything that is registered."""
    import json

    from ..graph.editor import json_schema

    print(json.dumps(json_schema(), indent=2))
