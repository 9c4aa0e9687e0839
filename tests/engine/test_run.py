"""The flow of a run with a stand-in for the computation: retries, deaths, full disks, Ctrl-C."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from leamfast.engine.agenda import Event
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard
from leamfast.engine.run import ATTEMPTS, run
from leamfast.engine.time_limit import TimeLimit
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageFullError

DRIVERS = [0, 2]


@dataclass(frozen=True)
class Work:
    """Writes a file a shard; does something else first where it is told to."""

    folder: Path
    what: str = ""
    where: int = -1
    times: int = 99

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Shard:
        if shard.number == self.where:
            tries = len(list(self.folder.glob(f"try-{shard.number}-*")))
            (self.folder / f"try-{shard.number}-{tries}").touch()
            if tries < self.times:
                self.act()
        return shard

    def act(self) -> None:
        if self.what == "raise":
            raise ValueError("no good")
        if self.what == "full":
            raise StorageFullError(errno.ENOSPC, "no room")
        if self.what == "request":
            raise RequestError("weights are gone")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "exit":
            os._exit(7)


@dataclass(frozen=True)
class Sink:
    folder: Path

    def __call__(self, part: Shard) -> None:
        (self.folder / f"done-{part.number}").touch()


def plan(count: int = 5) -> list[Shard]:
    return [Shard(number, ()) for number in range(count)]


@dataclass
class Ears:
    notes: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        self.events.append(event)

    def note(self, text: str) -> None:
        self.notes.append(text)


def go(folder: Path, work: Work, workers: int, ears: Ears | None = None):
    return run(plan(), work, Sink(folder), driver=LocalDriver(workers), listener=ears)


def done(folder: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in folder.glob("done-*")}


@pytest.mark.parametrize("workers", DRIVERS)
def test_every_shard_is_done_once(tmp_path, workers):
    report = go(tmp_path, Work(tmp_path), workers)
    assert sorted(report.done) == [0, 1, 2, 3, 4]
    assert done(tmp_path) == {0, 1, 2, 3, 4}
    assert not report.failed
    assert not report.interrupted


@pytest.mark.parametrize("workers", DRIVERS)
def test_a_shard_that_fails_once_is_tried_again(tmp_path, workers):
    report = go(tmp_path, Work(tmp_path, "raise", where=2, times=1), workers)
    assert sorted(report.done) == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.glob("try-2-*"))) == 2


@pytest.mark.parametrize("workers", DRIVERS)
def test_a_shard_that_always_fails_is_left_out_and_the_rest_is_done(tmp_path, workers):
    ears = Ears()
    report = go(tmp_path, Work(tmp_path, "raise", where=2), workers, ears)
    assert report.failed == {2: "ValueError: no good"}
    assert sorted(report.done) == [0, 1, 3, 4]
    assert len(list(tmp_path.glob("try-2-*"))) == ATTEMPTS
    assert any("left out" in text for text in ears.notes)
    assert len([event for event in ears.events if event.error]) == ATTEMPTS


@pytest.mark.parametrize(("what", "how"), [("die", "signal SIGKILL"), ("exit", "status 7")])
def test_a_worker_that_dies_costs_only_its_attempt(tmp_path, what, how):
    report = go(tmp_path, Work(tmp_path, what, where=1, times=1), workers=2)
    assert sorted(report.done) == [0, 1, 2, 3, 4]
    report = go(tmp_path, Work(tmp_path, what, where=3), workers=2)
    assert report.failed == {3: f"worker process ended with {how}"}


@pytest.mark.parametrize("workers", DRIVERS)
@pytest.mark.parametrize(("what", "error"), [("full", StorageFullError), ("request", RequestError)])
def test_errors_that_no_retry_can_escape_end_the_run(tmp_path, workers, what, error):
    with pytest.raises(error):
        go(tmp_path, Work(tmp_path, what, where=1), workers)
    assert len(list(tmp_path.glob("try-1-*"))) == 1


SCRIPT = """
import sys, time
from pathlib import Path
from leamfast.engine.agenda import Event
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard
from leamfast.engine.run import run

class Slow:
    def __call__(self, shard, ahead=None):
        print("begun", shard.number, flush=True)
        time.sleep(1.0)
        return shard

class Print:
    def __call__(self, part):
        print("done", part.number, flush=True)

if __name__ == "__main__":
    report = run([Shard(n, ()) for n in range(60)], Slow(), Print(), driver=LocalDriver(int(sys.argv[1])))
    print("report", len(report.done), report.interrupted, flush=True)
"""


def start(tmp_path: Path, workers: int) -> subprocess.Popen:
    script = tmp_path / "slow.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / p) for p in (".", "kernels", "bench"))}
    process = subprocess.Popen(
        [sys.executable, script, str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("begun")
    return process


@pytest.mark.parametrize("workers", DRIVERS)
def test_ctrl_c_finishes_the_shards_in_flight(tmp_path, workers):
    process = start(tmp_path, workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and to its workers
    out, err = process.communicate(timeout=60)
    finished = out.count("done")
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == f"report {finished} True"
    assert 1 <= finished <= max(1, workers)


@pytest.mark.parametrize("workers", DRIVERS)
def test_a_second_ctrl_c_stops_at_once(tmp_path, workers):
    process = start(tmp_path, workers)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "report" not in out
    assert "KeyboardInterrupt" in err


def test_workers_die_with_their_driver(tmp_path):
    import psutil

    process = start(tmp_path, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@dataclass(frozen=True)
class SlowToBegin(Work):
    """Takes two seconds to load in each process, and one shard hangs once."""

    def load(self, programs: object) -> None:
        time.sleep(2)

    def act(self) -> None:
        time.sleep(600)


def test_the_limit_of_a_shard_leaves_out_what_its_process_takes_to_begin(tmp_path):
    """Nor does a hung worker cost more than its own shard an attempt."""
    ears, driver = Ears(), LocalDriver(2, limit=TimeLimit(1.0))
    work = SlowToBegin(tmp_path, where=1, times=1)
    report = run(plan(), work, Sink(tmp_path), driver=driver, listener=ears)
    assert sorted(report.done) == [0, 1, 2, 3, 4]
    assert [(e.piece.number, e.error) for e in ears.events if e.error] == [
        (1, "not finished within 1 s, its worker was ended")
    ]
