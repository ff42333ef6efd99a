"""Shared by the tests of data: no deadline on a machine that others use too, and where real data lie."""

import os

import pytest
from hypothesis import settings

settings.register_profile("data", deadline=None, max_examples=60)
if settings.get_current_profile_name() == "default":
    settings.load_profile("data")


@pytest.fixture
def real_data():
    """The folder of public data; tests that need one are skipped without it."""
    folder = os.environ.get("AGBLOCKS_DATA")
    if not folder:
        pytest.skip("AGBLOCKS_DATA names no folder with the public data sets")
    return folder
