"""Scenarios: a run is struck at a random moment, goes on where it was cut, and its results are judged."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.cluster import TwoNodes
from tests.chaos.runs import IMAGES, SHARDS, Data, Process, Run, actors, judge

__all__ = ["SCENARIOS", "Skipped", "Stage", "Verdict", "play"]

PART = 220_000
"""Bytes of a part, roughly; a scenario that needs to know it says so if that is far off."""


class Skipped(Exception):
    """A scenario cannot be played on this machine."""


@dataclass
class Verdict:
    """How a run went.

    Attributes:
        when: the moment at which it was struck.
        statuses: of its commands, in order.
        problems: what should not be.
    """

    when: str = ""
    statuses: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Stage:
    """What all runs of one call share; a context manager that leaves nothing alive.

    Args:
        folder: new, with a short path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = Data(folder)
        self.runs: list[Run] = []
        self._cluster: TwoNodes | None = None

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
        if self._cluster is not None:
            self._cluster.end()

    def run(self, *options: str, under: Path | None = None) -> Run:
        """A new run; runs on the cluster have one folder of faults, as its nodes' variables are set once."""
        number = len(self.runs)
        faults = self.folder / ("faults" if "--gpus" in options else f"faults-{number}")
        self.runs.append(Run(self.data, (under or self.folder) / f"run-{number}", faults, options))
        return self.runs[-1]

    def clear(self) -> None:
        """End what the last run left, and remove its results."""
        for run in self.runs[-1:]:
            for process in run.processes:
                process.end()
            for folder in (run.out, run.faults):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def cluster(self) -> TwoNodes:
        """The cluster, with two nodes."""
        if self._cluster is not None and not self._cluster.popen.is_running():
            self._cluster = None
        if self._cluster is None:
            environment = Run(self.data, self.folder, self.folder / "faults").environment
            self._cluster = TwoNodes(self.folder, environment)
        return self._cluster

    def run_on_cluster(self, *options: str, under: Path | None = None) -> Run:
        """A new run on four GPUs of the cluster."""
        return self.run(
            "--gpus", "4", "--workers", "2", "--address", self.cluster.address, *options, under=under
        )


Scenario = Callable[[Stage, random.Random, Verdict], None]
SCENARIOS: dict[str, Scenario] = {}
"""Name -> scenario; the order is that in which they are played."""


def _scenario(scenario: Scenario) -> Scenario:
    SCENARIOS[scenario.__name__.replace("_", "-")] = scenario
    return scenario


def play(name: str, seed: int, stage: Stage) -> Verdict:
    """Play one scenario.

    Raises:
        Skipped: it cannot be played here.
    """
    verdict = Verdict()
    try:
        SCENARIOS[name](stage, random.Random(f"{name} {seed}"), verdict)
    except Skipped:
        raise
    except Exception as exc:  # one run that cannot be judged does not end the others
        verdict.problems.append(f"{type(exc).__name__}: {exc}")
    finally:
        stage.clear()
    return verdict


# What the scenarios are made of


def _ends(process: Process, status: int, verdict: Verdict) -> None:
    """The command must end with this status."""
    verdict.statuses.append(process.wait())
    if verdict.statuses[-1] != status:
        verdict.problems.append(f"status {verdict.statuses[-1]} in place of {status}: {process.said()}")


def _goes_on(run: Run, verdict: Verdict) -> None:
    _ends(run.start(), 0, verdict)


def _kill(process: Process, verdict: Verdict) -> None:
    """Kill the command itself, nothing else."""
    process.look()
    process.popen.kill()
    _ends(process, -signal.SIGKILL, verdict)


def _spawned(process: Process) -> list:
    """Worker processes of a run without Ray."""
    return [p for p in process.popen.children() if "spawn_main" in " ".join(p.cmdline())]


def _victim(rng: random.Random, found: list) -> None:
    if not found:
        raise RuntimeError("there was nobody to kill")
    rng.choice(found).kill()


def _somewhere(rng: random.Random) -> tuple[str, ...]:
    """Options of a place that survives the death of a worker."""
    return rng.choice([("--workers", "2"), ("--workers", "2", "--address", "local")])


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own on a folder while the block runs."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
        raise Skipped("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# On this machine, without Ray


@_scenario
def worker_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run("--workers", "2")
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _victim(rng, _spawned(process))
    _ends(process, 0, verdict)
    verdict.problems += judge(run)


@_scenario
def driver_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run("--workers", str(rng.randint(0, 2)))
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _kill(process, verdict)
    _goes_on(run, verdict)
    verdict.problems += judge(run)


@_scenario
def interrupted(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run(
        *rng.choice([("--workers", "0"), ("--workers", "2"), ("--workers", "2", "--address", "local")])
    )
    process = run.start()
    verdict.when = run.strike_when(process, rng, most=SHARDS - 4)
    process.popen.send_signal(signal.SIGINT)
    status = process.wait()  # parts in flight are finished, which may be all that were left
    _ends(process, 0 if len(run.parts()) == SHARDS and status == 0 else 130, verdict)
    _goes_on(run, verdict)
    verdict.problems += judge(run)


@_scenario
def image_crashes(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    image = rng.randrange(IMAGES)
    run = stage.run(*_somewhere(rng), "--max-attempts", "1")
    run.order("crash", image, once=False)
    verdict.when = f"at image {image}"
    _ends(run.start(), 0, verdict)
    verdict.problems += judge(run, [image])


@_scenario
def image_raises(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    image, once = rng.randrange(IMAGES), rng.random() < 0.3
    run = stage.run(*rng.choice([("--workers", "0"), *[_somewhere(rng)] * 2]))
    run.order("raise", image, once=once)
    verdict.when = f"at image {image}{' once' if once else ''}"
    _ends(run.start(), 0, verdict)
    verdict.problems += judge(run, [] if once else [image])


@_scenario
def worker_hangs(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    image = rng.randrange(IMAGES)
    run = stage.run(*_somewhere(rng), "--shard-timeout", "6")
    run.order("hang", image, once=True)
    verdict.when = f"at image {image}"
    _ends(run.start(), 0, verdict)
    verdict.problems += judge(run)


@_scenario
def image_hangs(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    image = rng.randrange(IMAGES)
    run = stage.run(*_somewhere(rng), "--shard-timeout", "6", "--max-attempts", "1")
    run.order("hang", image, once=False)
    verdict.when = f"at image {image}"
    _ends(run.start(), 0, verdict)
    verdict.problems += judge(run, [image])


@_scenario
def disk_full(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    disk, size = stage.folder / "disk", rng.randint(PART // 2, PART * (SHARDS - 1))
    with _mounted(disk, f"size={size}"):
        run = stage.run(*rng.choice([("--workers", "0"), _somewhere(rng)]), under=disk)
        verdict.when = f"after {size} bytes"
        process = run.start()
        _ends(process, 1, verdict)
        if "no room for" not in process.said():
            verdict.problems.append(f"it does not say that there is no room: {process.said()}")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        _ends(run.start(), 0, verdict)
        verdict.problems += judge(run)


@_scenario
def folder_read_only(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    """Another file system that takes nothing lies over the parts: chmod means nothing to root."""
    run = stage.run(*rng.choice([("--workers", "0"), _somewhere(rng)]))
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    with _mounted(run.out / "shards", "ro"):
        _ends(process, 1, verdict)
        if "refuses" not in process.said():
            verdict.problems.append(f"it does not say that the folder refuses: {process.said()}")
    _goes_on(run, verdict)
    verdict.problems += judge(run)


@_scenario
def part_corrupted(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run("--workers", str(rng.randint(0, 2)))
    process = run.start()
    if not process.until(lambda: len(run.parts()) >= 2):
        raise RuntimeError(f"it ended before it could be struck: {process.said()}")
    _kill(process, verdict)
    part = rng.choice(run.parts())
    content = bytearray(part.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.randint(1, 64))]
    for place in places:
        content[place] ^= rng.randint(1, 255)
    part.write_bytes(content)
    verdict.when = f"{len(places)} bytes of {part.name}"
    _goes_on(run, verdict)
    verdict.problems += judge(run)


# On an instance of Ray of the run's own


@_scenario
def actor_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run("--workers", "2", "--address", "local")
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _victim(rng, actors(process.family))
    _ends(process, 0, verdict)
    verdict.problems += judge(run)


@_scenario
def ray_driver_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run("--workers", "2", "--address", "local")
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _kill(process, verdict)
    _goes_on(run, verdict)
    verdict.problems += judge(run)


# On a cluster of two nodes


def _kill_on_cluster(stage: Stage, rng: random.Random, verdict: Verdict, kind: str, run: Run) -> None:
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _victim(rng, actors(stage.cluster.family(), [f"ray::{kind}"]))
    _ends(process, 0, verdict)
    verdict.problems += judge(run, family=stage.cluster.actors)


@_scenario
def cluster_computer_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    _kill_on_cluster(stage, rng, verdict, "Computer", stage.run_on_cluster())


@_scenario
def cluster_preparer_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    _kill_on_cluster(stage, rng, verdict, "Preparer", stage.run_on_cluster())


@_scenario
def cluster_writer_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    """Half of the actors do not see the folder of the results."""
    if stage.cluster.hidden is None:
        raise Skipped("folders cannot be hidden here")
    run = stage.run_on_cluster(under=stage.cluster.hidden)
    process = run.start()
    if not process.until(lambda: bool(actors(stage.cluster.family(), ["ray::Writer"]))):
        raise RuntimeError(f"it ended before anybody wrote: {process.said()}")
    time.sleep(pause := rng.random())
    verdict.when = f"{pause:.2f} s after the first writer came"
    _victim(rng, actors(stage.cluster.family(), ["ray::Writer"]))
    _ends(process, 0, verdict)
    verdict.problems += judge(run, family=stage.cluster.actors)


@_scenario
def cluster_node_lost(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run, back = stage.run_on_cluster(), rng.random() < 0.5
    process = run.start()
    verdict.when = run.strike_when(process, rng) + (", comes back" if back else "")
    stage.cluster.lose_node()
    try:
        if back:
            stage.cluster.new_node()
        _ends(process, 0, verdict)
    finally:
        if not back:
            stage.cluster.new_node()
    verdict.problems += judge(run, family=stage.cluster.actors)


@_scenario
def cluster_driver_killed(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    run = stage.run_on_cluster()
    process = run.start()
    verdict.when = run.strike_when(process, rng)
    _kill(process, verdict)
    _goes_on(run, verdict)
    verdict.problems += judge(run, family=stage.cluster.actors)


@_scenario
def cluster_image_crashes(stage: Stage, rng: random.Random, verdict: Verdict) -> None:
    image = rng.randrange(IMAGES)
    run = stage.run_on_cluster("--max-attempts", "1")
    run.order("crash", image, once=False)
    verdict.when = f"at image {image}"
    _ends(run.start(), 0, verdict)
    verdict.problems += judge(run, [image], family=stage.cluster.actors)
