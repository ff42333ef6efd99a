"""Encoders: DNA into tracks of falling resolution."""
