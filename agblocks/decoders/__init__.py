"""Decoders: back to finer resolutions."""
