"""Runs to be struck: the data, the command, its processes, and what must be true of its results."""

import csv
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import psutil

from leamfast.datasets.synthetic import write_dataset
from leamfast.store.part import read_part
from leamfast.store.verify import verify
from tests.chaos.faulty import FOLDER, PAUSE, TAG

__all__ = ["IMAGES", "PATIENCE", "SHARDS", "Data", "Process", "Run", "actors", "judge", "living", "shard_of"]

ROOT = Path(__file__).resolve().parents[2]

PEOPLE, EACH = 12, 4
IMAGES = PEOPLE * EACH
SHARD_IMAGES = 8
SHARDS = IMAGES // SHARD_IMAGES

PATIENCE = 240.0
"""Seconds that a command may take; a run that is not struck takes less than 20."""

LOOK = 0.25
"""Seconds between looks at which processes there are."""

GONE = 30.0
"""Seconds after the end of a run in which its processes must be gone."""

ACTORS = ("ray::Computer", "ray::Preparer", "ray::Writer")
AGENTS = ("ray::RuntimeEnvAgent", "ray::DashboardAgent")
"""Ray's own: those of an instance whose driver was killed wait a minute for its server before they end."""

NOT_USED = ("decode", "detect", "align", "parse", "compute")
"""Stages of failures.csv that leave an image without a row."""


def shard_of(image: int) -> int:
    """The shard that an image lies in."""
    return image // SHARD_IMAGES


@dataclass
class Data:
    """Images that the faulty model knows by their first pixel, and what an undisturbed run makes of them.

    Attributes:
        folder: new, and short enough that Ray can have its sockets below it.
        faces: the images; `clean`: the results.
    """

    folder: Path
    faces: Path = field(init=False)
    clean: Path = field(init=False)

    def __post_init__(self) -> None:
        from PIL import Image

        self.faces, self.clean = self.folder / "faces", self.folder / "clean"
        write_dataset(self.faces, identities=PEOPLE, images=EACH, seed=3)
        for number, name in enumerate(self.names):
            path = self.faces / name
            with Image.open(path) as image:
                image.putpixel((0, 0), (number, *TAG))
                image.save(path)
        run = Run(self, self.clean, self.folder / "no-faults", pause=0)
        process = run.start()
        if status := process.wait():
            raise RuntimeError(f"the undisturbed run ended with {status}: {process.said()}")

    @property
    def sockets(self) -> Path:
        """Where Ray keeps what it keeps."""
        return self.folder

    @property
    def names(self) -> list[str]:
        """Paths of the images as results name them, in the manifest's order."""
        return [f"id{person:04d}/{image:03d}.png" for person in range(PEOPLE) for image in range(EACH)]


class Process:
    """A command in a process of its own, and the processes that it started.

    Args:
        command: with its arguments.
        environment: variables in addition.
        log: file that takes what it says.
    """

    def __init__(self, command: Sequence[str | Path], environment: dict[str, str], log: Path) -> None:
        self.log, self.family = log, set[psutil.Process]()
        with log.open("ab") as file:
            self.popen = psutil.Popen(
                [str(word) for word in command],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip

    def look(self) -> None:
        """Remember which processes there are: those of a process that was killed have no parent to name."""
        with suppress(psutil.NoSuchProcess):
            self.family |= set(self.popen.children(recursive=True))

    def until(self, there: Callable[[], bool]) -> bool:
        """Wait for something; returns whether it came before the process ended.

        Raises:
            TimeoutError: neither happened.
        """
        end, looked = time.monotonic() + PATIENCE, 0.0
        while time.monotonic() < end:
            if time.monotonic() - looked > LOOK:  # it reads all of /proc
                self.look()
                looked = time.monotonic()
            if there():
                return True
            if self.popen.poll() is not None:
                return False
            time.sleep(0.02)
        raise TimeoutError(f"nothing happened within {PATIENCE:.0f} s")

    def wait(self) -> int:
        """The exit status.

        Raises:
            TimeoutError: the process goes on and on; it and its processes are ended.
        """
        end = time.monotonic() + PATIENCE
        while self.popen.poll() is None:
            self.look()
            if time.monotonic() > end:
                self.end()
                raise TimeoutError(f"not finished within {PATIENCE:.0f} s: {self.said()}")
            time.sleep(LOOK)
        return int(self.popen.returncode)

    def end(self) -> None:
        """Kill it and what it started."""
        self.look()
        for process in [self.popen, *self.family]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait()

    def said(self) -> str:
        """The end of what it said."""
        lines = self.log.read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-4:])


@dataclass
class Run:
    """`leamfast batch` into one folder, as often as it takes.

    Attributes:
        data: what it computes.
        out: result folder.
        faults: folder of the faulty model's orders.
        options: of the command, in addition.
        pause: seconds that each batch takes in addition.
        processes: those that were started, the last one last.
    """

    data: Data
    out: Path
    faults: Path
    options: tuple[str, ...] = ()
    pause: float = 0.3
    processes: list[Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the command and of all its workers."""
        return {
            "PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in (".", "kernels", "bench")),
            FOLDER: str(self.faults),
            PAUSE: str(self.pause),
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": str(self.data.sockets),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a node at 127.0.0.1 is not to be had otherwise
        }

    def start(self, *more: str) -> Process:
        """Begin, or go on with --resume where there is something."""
        self.faults.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            sys.executable, ROOT / "cli.py", "batch", self.data.faces, "--out", self.out,
            "--model", "tests.chaos.faulty:network", "--trust-code", "--input-size", "112",
            "--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5", "--channels", "rgb",
            "--layers", "all", "--align", "none", "--backend", "eager", "--threads", "1",
            "--batch-size", "4", "--shard-images", str(SHARD_IMAGES), *self.options, *more,
        ]  # fmt: skip
        if self.processes:
            command.append("--resume")
        log = self.data.folder / f"{self.out.name}-{len(self.processes)}.log"
        self.processes.append(Process(command, self.environment, log))
        return self.processes[-1]

    def order(self, what: str, image: int, *, once: bool) -> None:
        """Have the model `crash`, `hang` or `raise` at an image."""
        self.faults.mkdir(parents=True, exist_ok=True)
        (self.faults / f"{what}-{image}{'.once' if once else ''}").touch()

    def parts(self) -> list[Path]:
        """Parts that are there."""
        return sorted((self.out / "shards").glob("part-*.h5"))

    def strike_when(self, process: Process, rng: random.Random, most: int = SHARDS - 3) -> str:
        """Wait until some parts are there, and a little longer; returns which moment that is.

        Raises:
            RuntimeError: the run ended before.
        """
        parts, more = rng.randint(0, most), rng.random() * 0.7
        begun = self.out / "progress.jsonl"
        if not process.until(lambda: begun.is_file() and len(self.parts()) >= parts):
            raise RuntimeError(f"it ended before it could be struck: {process.said()}")
        time.sleep(more)
        process.look()
        return f"{parts} parts + {more:.2f} s"


def living(processes: Collection[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def actors(family: Collection[psutil.Process], kinds: Sequence[str] = ACTORS) -> list[psutil.Process]:
    """Actors of leamfast among processes."""
    found = []
    for process in living(family):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if " ".join(process.cmdline()).startswith(tuple(kinds)):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def judge(run: Run, culprits: Collection[int] = (), family: Callable[[], Collection] = list) -> list[str]:
    """What is wrong with the results of a finished run, a sentence each.

    Args:
        run: the run.
        culprits: images that the run had to leave out.
        family: further processes of which none may be left, asked until none is.
    """
    problems = [*verify(run.out), *_uncounted(run, culprits)]
    if not problems:
        problems = list(_other_values(run, culprits))
    leftovers = [path for path in run.out.rglob(".*") if path.is_file() and path.name != ".lock"]
    problems += [f"{path.relative_to(run.out)} is left over" for path in leftovers]
    return problems + [f"{name} is still alive" for name in _left(run, family)]


def _left(run: Run, family: Callable[[], Collection]) -> list[str]:
    end = time.monotonic() + GONE
    while True:
        left = living({*family(), *(process for one in run.processes for process in one.family)})
        left = [process for process in left if process not in actors(left, AGENTS)]
        if not left or time.monotonic() > end:
            return [_described(process) for process in left]
        time.sleep(0.2)


def _described(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({' '.join(process.cmdline())[:120]})"
    except psutil.NoSuchProcess:
        return f"process {process.pid}"


def _uncounted(run: Run, culprits: Collection[int]) -> Iterator[str]:
    """Each image has a row, or stands in failures.csv, and not both."""
    names = run.data.names
    with h5py.File(run.out / "index.h5") as index:
        rows = index["image/path"].asstr()[...].tolist()
    with (run.out / "failures.csv").open(newline="", encoding="utf-8") as file:
        left_out = {row["path"]: row["stage"] for row in csv.DictReader(file) if row["stage"] in NOT_USED}
    if len(set(rows)) != len(rows):
        yield "an image has two rows"
    if both := set(rows) & set(left_out):
        yield f"{sorted(both)[0]} has a row and stands in failures.csv"
    if lost := set(names) - set(rows) - set(left_out):
        yield f"{len(lost)} images are lost, the first of them {sorted(lost)[0]}"
    if strange := (set(rows) | set(left_out)) - set(names):
        yield f"{sorted(strange)[0]} is not one of the images"
    wanted = {names[image]: "compute" for image in culprits}
    if left_out != wanted:
        yield f"failures.csv leaves out {left_out} where it should be {wanted}"


def _other_values(run: Run, culprits: Collection[int]) -> Iterator[str]:
    """Shards have the bits of the undisturbed run; those without a culprit nearly the same values.

    Images of a culprit's person have one reference less, so of them only embeddings can be compared.
    """
    guilty = {shard_of(image) for image in culprits}
    for shard in range(SHARDS):
        name = f"shards/part-{shard:05d}.h5"
        ours, clean = read_part(run.out / name).arrays, read_part(run.data.clean / name).arrays
        if set(ours) != set(clean):
            yield f"{name} holds other arrays"
            continue
        if shard not in guilty:
            for key, array in clean.items():
                text = array.is_text or array.values.dtype.kind != "f"
                if not np.array_equal(array.values, ours[key].values, equal_nan=not text):
                    yield f"{name}: {key} has other bits"
            continue
        out = {run.data.names[image] for image in culprits}
        paths = clean["image/path"].values.tolist()
        kept = [row for row, path in enumerate(paths) if path not in out]
        people = {Path(path).parent for path in out}
        others = [row for row in kept if Path(paths[row]).parent not in people]
        mine = {path: row for row, path in enumerate(ours["image/path"].values.tolist())}
        for key, array in clean.items():
            field = Path(key).name
            if not key.startswith("model/") or field not in ("embedding", "map", "scale"):
                continue
            rows = kept if field == "embedding" else others
            found = ours[key].values[[mine[paths[row]] for row in rows]].astype(np.float64)
            wanted = array.values[rows].astype(np.float64)
            if not np.allclose(found, wanted, rtol=2e-3, atol=2e-3, equal_nan=True):
                yield f"{name}: {key} is off by {np.nanmax(np.abs(found - wanted)):.2g}"
