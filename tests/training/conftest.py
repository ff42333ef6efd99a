from __future__ import annotations

import pytest
from training_helpers import QUICK, SMALL, table_and_splits

from agblocks.data import Construct
from agblocks.training import fit


@pytest.fixture(scope="session")
def measured():
    return table_and_splits()


@pytest.fixture(scope="session")
def run_folder(measured, tmp_path_factory):
    """One small finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fit(SMALL, *measured, folder, QUICK, construct=Construct())
    return folder
