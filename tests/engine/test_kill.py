"""SIGKILL at chosen and at random moments; what is left goes on to the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from leamfast.store.verify import verify
from tests.engine.test_batch import assert_same

ROOT = Path(__file__).resolve().parents[2]

# Kills itself at the n-th fsync: just before a file gets its name (odd) or just after (even).
SCRIPT = """
import os, signal, sys
from pathlib import Path
from leamfast.engine.batch_run import BatchRequest, run_batch
import leamfast.store.atomic as atomic

data, out, at, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
real, calls = os.fsync, 0

def fsync(descriptor):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

atomic.os.fsync = fsync
if __name__ == "__main__":
    run_batch(BatchRequest(data=data, out=out, model=("demo=random:0",), align="none", shard_images=4,
                           batch_size=4, threads=1, workers=workers, resume=True))
"""

SHARDS = 12
# run.toml, the parts, failures.csv, index.h5: two calls each.
CALLS = 2 * (1 + SHARDS + 2)


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    """Runs the job in a process of its own; returns its exit status."""
    folder = tmp_path_factory.mktemp("kill")
    script = folder / "job.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}

    def start(out: Path, at: int = 0, workers: int = 0) -> subprocess.Popen:
        command = [sys.executable, script, faces, out, str(at), str(workers)]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
        )

    return start


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("kill") / "whole"
    process = run(out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert verify(out) == []
    return out


def parts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("part-*.h5")}


def finish(run, out: Path, uninterrupted: Path, workers: int = 0) -> None:
    before = parts(out)
    process = run(out, workers=workers)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    after = parts(out)
    assert {name: after[name] for name in before} == before  # finished parts are not computed again
    assert len(after) == SHARDS
    assert verify(out) == []
    assert_same(uninterrupted, out)


@pytest.mark.parametrize(
    ("at", "where"),
    [(1, "run.toml"), (9, "a part's write"), (16, "after a rename"), (2 + 2 * SHARDS + 1, "failures.csv"),
     (CALLS - 1, "the index's write"), (CALLS, "after the index")],
    ids=lambda value: str(value).replace(" ", "-"),
)  # fmt: skip
def test_killed_in_a_write(run, uninterrupted, tmp_path, at, where):
    out = tmp_path / "out"
    process = run(out, at)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, f"not killed in {where}"
    assert len(parts(out)) == min(max(at // 2 - 1, 0), SHARDS)
    if at % 2:
        assert list(out.rglob(".*.tmp")), "the write was cut off, so its temporary file is there"
    finish(run, out, uninterrupted)
    assert not list(out.rglob(".*.tmp"))


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_a_random_moment_with_workers(run, uninterrupted, tmp_path, seed):
    """Killed once some parts are there, at any point of computing or writing the next ones; twice."""
    out = tmp_path / "out"
    rng = random.Random(seed)
    for goal in (rng.randint(1, 3), rng.randint(4, 6)):  # far enough from the end to be killed before it
        process = run(out, workers=2)
        while process.poll() is None and (not (out / "shards").is_dir() or len(parts(out)) < goal):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.04)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was finished before it could be killed"
    finish(run, out, uninterrupted, workers=int(np.sign(seed)))
