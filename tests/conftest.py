"""Shared by all tests: the hypothesis profiles (`make fuzz` takes the long one)."""

from agblocks.testing import profiles

profiles.register()
