"""Heads: outputs of a model, and their losses."""
