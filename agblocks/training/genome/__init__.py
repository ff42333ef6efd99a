"""Whole chromosomes predicted window by window, as one long window would."""
