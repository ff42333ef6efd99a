"""Weights in four bits (NF4), as tensors that stand where dense ones stood."""
