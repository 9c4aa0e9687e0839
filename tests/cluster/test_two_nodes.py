"""`--gpus 4` on a cluster of two nodes without a real GPU: the values of the local driver, to the bit."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leamfast.store.verify import verify
from tests.chaos.cluster import TwoNodes
from tests.engine.test_batch import assert_same

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "bench")),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
}
SETTINGS = ["--model", "demo=random:0", "--align", "none", "--backend", "eager", "--threads", "1"]
SETTINGS += ["--shard-images", "8", "--batch-size", "4"]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """A folder with data, and a cluster whose second node does not see all of it."""

    folder: Path
    cluster: TwoNodes

    def batch(self, out: Path, *options: str) -> str:
        """Run `leamfast batch`; what it says."""
        command = [
            sys.executable,
            str(ROOT / "cli.py"),
            "batch",
            str(self.folder / "faces"),
            "--out",
            str(out),
        ]
        run = subprocess.run(
            [*command, *SETTINGS, *options],
            capture_output=True, text=True, timeout=300, env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout == ""
        return run.stderr


@pytest.fixture(scope="module")
def place(faces) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp"))  # Ray's sockets must have short names
    shutil.copytree(faces, folder / "faces")
    cluster = TwoNodes(folder, ENVIRONMENT)
    try:
        yield Place(folder, cluster)
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def local(place) -> Path:
    out = place.folder / "local"
    place.batch(out)
    return out


def test_four_gpus_on_two_nodes_give_the_maps_of_the_local_driver(place, local):
    out = place.folder / "gpus"
    said = place.batch(out, "--gpus", "4", "--workers", "2", "--address", place.cluster.address)
    assert_same(local, out)
    assert verify(out) == []
    assert said.count("torch sees no GPU where Ray gives one") == 1
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert [lines[0]["what"], lines[-1]["what"]] == ["begins", "ends"]
    assert (lines[-1]["done"], lines[-1]["total"], lines[-1]["failures"]) == (48, 48, 0)
    assert lines[-1]["workers"] >= 1
    assert 0 < lines[-1]["utilisation"] <= 1
    assert not list(out.rglob(".*.tmp"))


def test_split_identities_where_the_second_node_sees_neither_folder_nor_references(place, tmp_path):
    """Parts come to a writer on the driver's node, references from the object store."""
    if place.cluster.hidden is None:
        pytest.skip("no folder can be hidden from a process here")
    whole, hidden = place.folder / "whole", place.cluster.hidden / "out"
    split = ["--split-images", "3"]
    place.batch(whole, *split)
    said = place.batch(hidden, *split, "--gpus", "4", "--workers", "2", "--address", place.cluster.address)
    assert_same(whole, hidden)
    assert verify(hidden) == []
    assert "failed" not in said


def test_more_gpus_than_there_are_still_compute(place, local):
    """Actors that find no place are no harm as long as others work."""
    out = place.folder / "six"
    place.batch(out, "--gpus", "6", "--workers", "1", "--address", place.cluster.address)
    assert_same(local, out)
