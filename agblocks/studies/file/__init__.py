"""A study as it is written: its form, where it is found, what is wrong with it."""
