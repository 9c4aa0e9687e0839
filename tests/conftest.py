"""Fixtures that more than one package's tests use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and weights, which is not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LEAMFAST_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("test data not found: set LEAMFAST_TEST_DATA")
    return folder
