"""Runs of `make chaos`: a node is lost, a driver killed, an image deadly, a worker hangs, a disk is full."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import SCENARIOS, Skipped, Stage, play

pytestmark = pytest.mark.slow

CHOSEN = {
    "driver-killed": 1,
    "image-crashes": 2,
    "worker-hangs": 3,
    "disk-full": 4,
    "cluster-node-lost": 5,
}
"""Scenario -> seed."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp"))  # Ray's sockets must have short names
    try:
        with Stage(folder) as stage:
            yield stage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_run_that_is_struck_loses_nothing(stage, name):
    assert name in SCENARIOS
    try:
        verdict = play(name, CHOSEN[name], stage)
    except Skipped as reason:
        pytest.skip(str(reason))
    assert not verdict.problems, verdict
    assert verdict.statuses, "nothing was run"
