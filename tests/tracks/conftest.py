from __future__ import annotations

import pytest
from tracks_helpers import made_genome


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A small genome with four tracks, not to be changed."""
    return made_genome(tmp_path_factory.mktemp("genome"))
