"""Towers: what sees the whole window."""
