"""What runs in Ray's actors: computing, preparing, writing. Each loads what it needs once."""

import gc
import os
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from leamfast.engine.agenda import is_trial
from leamfast.engine.local import reason_of
from leamfast.engine.plan import Piece
from leamfast.engine.run import FATAL, Function, Sink

__all__ = ["Answer", "Computer", "Hello", "Preparer", "Work", "Writer", "answered"]


@dataclass(frozen=True)
class Work:
    """What actors are to do in a run.

    Attributes:
        function, sink: as `engine.run.run` takes them.
        probe: a file in the folder of the results, and its content: who reads the same there writes there.
        device: device that the values of this run are computed on, by name; None for whatever there is.
    """

    function: Function
    sink: Sink
    probe: tuple[Path, str]
    device: str | None = None


@dataclass(frozen=True)
class Hello:
    """What a computing actor says of itself.

    Attributes:
        device: `cuda` or `cpu`; `device_name`: its name.
        blind: whether Ray gave it a GPU that torch cannot see.
        writes: whether it writes results itself.
        process: which process on which node.
    """

    device: str
    device_name: str
    blind: bool
    writes: bool
    process: str


@dataclass(frozen=True)
class Answer:
    """How a call went.

    Attributes:
        began, ended: by the clock of the actor's node.
        error: why it failed, empty where it did not.
        fatal: the error, where no other attempt can escape it.
        lost: whether the actor is a new one, in place of one that died, and has no work yet.
    """

    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    fatal: BaseException | None = None
    lost: bool = False


def answered(call: Callable[[], Any]) -> tuple[Answer, Any]:
    """What a call gives, and how it went; errors are answers here, so that only deaths are Ray's errors."""
    began = time.monotonic()
    value, error, fatal = None, "", None
    try:
        value = call()
    except FATAL as exc:
        error, fatal = reason_of(exc), exc
    except Exception as exc:
        traceback.print_exc()  # into Ray's log of this worker
        error = reason_of(exc)
    return Answer(began, time.monotonic(), error, fatal), value


class Actor:
    """What all actors that take up work can do."""

    def here(self) -> str:
        """The node that it lives on; an actor that answers this is there and can be given work."""
        import ray

        return str(ray.get_runtime_context().get_node_id())


class Computer(Actor):
    """Computes pieces on its device; writes them in the background where it can."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.writes = False
        self.disk = ThreadPoolExecutor(1)
        self.written: dict[str, Future[Answer]] = {}

    def look(self) -> Hello:
        """What it computes on."""
        import torch

        from leamfast.models.devices import device_name

        given = bool(os.environ.get("CUDA_VISIBLE_DEVICES", "").strip())
        device = "cuda" if given and torch.cuda.is_available() else "cpu"
        blind = given and device == "cpu"
        return Hello(device, device_name(device), blind, False, f"process {os.getpid()}")

    def call(self, function: Callable[..., Any], *args: Any) -> tuple[Answer, Any]:
        """What a function gives when it is called here."""
        return answered(partial(function, *args))

    def begin(self, work: Work, files: Mapping[str, bytes]) -> tuple[Answer, Hello]:
        """Take up work.

        Args:
            work: what to do.
            files: compiled programs by the name of their file.
        """
        self.work = None
        gc.collect()  # models of an earlier pass, before those of this one
        hello = self.look()
        path, content = work.probe
        hello = Hello(hello.device, hello.device_name, hello.blind, _reads(path, content), hello.process)
        if work.device not in (None, hello.device_name):
            return Answer(), hello
        self.work, self.writes = work, hello.writes
        load = getattr(work.function, "load", None)
        return (answered(partial(load, files))[0] if load is not None else Answer()), hello

    def compute(self, key: str, piece: Piece, prepared: Any = None) -> tuple[Answer, Any]:
        """Compute a piece.

        Args:
            key: names this attempt.
            piece: the piece.
            prepared: of a preparer, or None where there are none.

        Returns:
            How it went; and the result where others write it. What this actor writes itself is on its way to
            the disk, for `finish` to wait for.
        """
        if self.work is None:
            return Answer(lost=True), None
        function, sink = self.work.function, self.work.sink
        if prepared is None:
            answer, result = answered(partial(function, piece))
        else:
            answer, result = answered(partial(function.compute, piece, prepared))  # type: ignore[attr-defined]
        if answer.error or is_trial(piece):
            return answer, None
        if not self.writes:
            return answer, result
        self.written[key] = self.disk.submit(lambda: answered(partial(sink, result))[0])
        return answer, None

    def finish(self, key: str) -> Answer:
        """Wait until a result is written; called beside the next `compute`.

        An actor that never computed it is a new one in place of one that died with it.
        """
        writing = self.written.pop(key, None)
        return Answer(lost=True) if writing is None else writing.result()


class Preparer(Actor):
    """Decodes pictures, finds and aligns faces, on the CPU."""

    def __init__(self) -> None:
        self.work: Work | None = None

    def begin(self, work: Work) -> tuple[Answer, None]:
        """Take up work."""
        self.work = work
        return Answer(), None

    def prepare(self, piece: Piece) -> tuple[Answer, Any]:
        """What `compute` needs of a piece."""
        if self.work is None:
            return Answer(lost=True), None
        return answered(partial(self.work.function.prepare, piece))  # type: ignore[attr-defined]


class Writer:
    """Writes results on the driver's node."""

    def write(self, sink: Sink, result: Any) -> Answer:
        """Put a result where it belongs."""
        return answered(partial(sink, result))[0]


def _reads(path: Path, content: str) -> bool:
    """Whether a file is there with this content, in a folder that we may write."""
    try:
        return path.read_text(encoding="utf-8") == content and os.access(path.parent, os.W_OK)
    except (OSError, UnicodeDecodeError):
        return False
