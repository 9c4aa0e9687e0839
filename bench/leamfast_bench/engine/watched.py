"""A run of `leamfast batch` that says when what happened.

A process of its own, as a user's command is; nothing else is done in it, so functions may be replaced.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["Watched", "start", "watched_run"]

PATIENCE = 900.0


class Watched:
    """A run that was started.

    Args:
        options: of a `BatchRequest`.
        folder: on which `asked.json` and `told.json` lie meanwhile.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path) -> None:
        self.folder = TemporaryDirectory(dir=folder)
        self.told = Path(self.folder.name) / "told.json"
        self.said = Path(self.folder.name) / "said.txt"
        asked = Path(self.folder.name) / "asked.json"
        asked.write_text(json.dumps(options, default=str))
        # As the command finds its packages, from a checkout too.
        paths = os.pathsep.join(path for path in sys.path if path)
        with self.said.open("wb") as said:
            self.began = time.time()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "leamfast_bench.engine.watched", str(asked), str(self.told)],
                env={**os.environ, "PYTHONPATH": paths}, stdout=said, stderr=said,
            )  # fmt: skip

    def result(self) -> dict[str, Any]:
        """What `main` wrote, with `began`, when the process was asked for, and `seconds` until it ended.

        Raises:
            RuntimeError: the run failed.
        """
        with self.folder:
            try:
                code = self.process.wait(PATIENCE)
            finally:
                self.process.kill()
            seconds = time.time() - self.began
            if code or not self.told.is_file():
                raise RuntimeError(f"a run ended with status {code}: {self.said.read_text()[-2000:]}")
            return {"began": self.began, "seconds": seconds} | json.loads(self.told.read_text())


def start(options: Mapping[str, Any], folder: Path) -> Watched:
    """Start a run."""
    return Watched(options, folder)


def watched_run(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A run, from its beginning to its end."""
    return start(options, folder).result()


def main(asked: str, told: str) -> None:
    """Run and tell: times by the wall clock, `events` as (worker, piece, amount, began, ended)."""
    from leamfast.engine import batch_run
    from leamfast.engine.agenda import Event
    from leamfast.engine.progress import WorkProgress
    from leamfast.store.results import open_results

    times = {"imported": time.time()}
    events: list[tuple[str, int, int, float, float]] = []
    offset = time.time() - time.monotonic()

    class Listening(WorkProgress):
        def hear(self, event: Event) -> None:
            if event.error or not event.final:
                raise RuntimeError(f"{event.piece.title} failed: {event.error}")
            when = event.began + offset, event.ended + offset
            events.append((event.worker, event.piece.number, event.piece.amount, *when))
            super().hear(event)

    options = json.loads(Path(asked).read_text())
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    request = batch_run.BatchRequest(
        **{**options, "data": Path(options["data"]), "out": Path(options["out"])}
    )
    batch_run.WorkProgress = Listening  # type: ignore[misc]
    if request.on_ray:
        _watch_ray(times)
    report = batch_run.run_batch(request, note=lambda text: None)
    times["ended"] = time.time()
    with open_results(request.out) as results:
        digests = [digest for _, digest in results.parts]
    about = {"images": report.images, "failures": report.failures, "digests": digests}
    Path(told).write_text(json.dumps(about | {"times": times, "events": events}))


def _watch_ray(times: dict[str, float]) -> None:
    """When Ray was there, when the first actor was, and when models and backend were chosen."""
    from leamfast.engine.cluster import site

    connected, find, resolve = site.connected, site.RaySite._first, site.RaySite.resolve

    @contextmanager
    def watched_connected(*args: Any) -> Iterator[None]:
        with connected(*args):
            times["connected"] = time.time()
            yield

    def watched_find(self: Any, *args: Any) -> Any:
        found = find(self, *args)
        times["actor"] = time.time()
        return found

    def watched_resolve(self: Any, *args: Any) -> Any:
        found = resolve(self, *args)
        times["resolved"] = time.time()
        return found

    site.connected = watched_connected
    site.RaySite._first, site.RaySite.resolve = watched_find, watched_resolve  # type: ignore[method-assign]


if __name__ == "__main__":
    main(*sys.argv[1:])
