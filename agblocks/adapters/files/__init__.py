"""Adapters saved alone, in a file of ours or in peft's layout."""
