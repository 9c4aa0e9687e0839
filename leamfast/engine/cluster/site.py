"""A run on Ray: its actors, and what the first of them finds out for all."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leamfast.engine.batch import BatchFunction, set_up_torch
from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.cluster.connection import connected
from leamfast.engine.cluster.driver import AGAIN, PATIENCE, REMIND, RayDriver
from leamfast.engine.cluster.hands import Hand, Team
from leamfast.engine.programs import resolve_backends
from leamfast.engine.request import BatchRequest
from leamfast.engine.run import Driver, Listener
from leamfast.engine.site import Resolved
from leamfast.engine.slices import SplitReferences
from leamfast.engine.time_limit import TimeLimit
from leamfast.errors import RequestError
from leamfast.leam.diagnostics import program_warnings
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model
from leamfast.store.references import References

__all__ = ["RaySite", "ray_site"]

PREPARERS = 4
"""Preparing actors for each GPU, where there are so many processors and none are asked for."""

LOADS = 3
"""Actors that may die while they load the models before the run ends."""

LOOK = 5.0  # seconds between looks at what is there


@dataclass(frozen=True)
class _Resolution:
    """What an actor finds out: settings with backends, warnings, and the files of compiled programs."""

    settings: BatchSettings
    warnings: dict[str, dict[str, tuple[str, ...]]]
    kept: dict[str, Path | None]
    files: dict[str, bytes]
    notes: tuple[str, ...]


@contextmanager
def ray_site(
    request: BatchRequest, before: dict[str, Any] | None, note: Callable[[str], None]
) -> "Iterator[RaySite]":
    """A site on Ray while the block runs: see `connection.connected`.

    Args:
        request: what is asked.
        before: frozen settings of the run that goes on, whose number of threads is kept.
        note: told of what the user should know.
    """
    if request.threads is None and before is not None:
        request = replace(request, threads=before["threads"])
    cpus = max(1, request.workers) * (request.threads or 1)
    with connected(request.address, cpus, request.gpus):
        site = RaySite(request, note)
        try:
            yield site
        finally:
            site.close()


class RaySite:
    """Actors of a Ray cluster that we are connected to.

    Raises:
        RequestError: no computing actor can begin.
    """

    def __init__(self, request: BatchRequest, note: Callable[[str], None]) -> None:
        import ray

        self.ray, self.request = ray, request
        processors = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        self.finding_device = "cpu"
        self.threads = 1 if request.gpus else _threads(processors, request.workers)
        threads = request.threads or self.threads
        workers = request.workers
        if request.gpus and not workers:
            workers = max(1, min(PREPARERS * request.gpus, sum(count // threads for count in processors)))
        self.team = Team(request.gpus, workers, threads)
        self.workers = len(self.team.computers)
        self.first = self._first(note)
        assert self.first.hello is not None
        self.device, self.device_name = self.first.hello.device, self.first.hello.device_name
        if self.first.hello.blind:
            note("torch sees no GPU where Ray gives one: computing on the CPU there, many times slower")
        self.files: Mapping[str, bytes] = {}

    def _first(self, note: Callable[[str], None]) -> Hand:
        """The computing actor that is there first."""
        looks = {hand.actor.look.remote(): hand for hand in self.team.computers}
        began = reminded = time.monotonic()
        while True:
            ready, _ = self.ray.wait(list(looks), num_returns=1, timeout=LOOK)
            now = time.monotonic()
            if ready:
                hand = looks.pop(ready[0])
                try:
                    hand.hello = self.ray.get(ready[0])
                    return hand
                except self.ray.exceptions.ActorUnavailableError:  # it died, and is started again
                    looks[hand.actor.look.remote()] = hand
                    time.sleep(AGAIN)
                except self.ray.exceptions.RayError as exc:
                    last = [line.strip() for line in str(exc).splitlines() if line.strip()][-1]
                    if not looks:
                        raise RequestError(
                            f"no computing actor can begin ({last}): leamfast must be installed on every "
                            "node in this version; see Ray's logs"
                        ) from exc
            total = self.ray.cluster_resources()
            have = ", ".join(f"{total.get(kind, 0):.0f} {kind}s" for kind in ("GPU", "CPU"))
            if now - began > PATIENCE:
                raise RequestError(f"no computing actor could begin within {PATIENCE:.0f} s: Ray has {have}")
            if now - reminded > REMIND:
                reminded = now
                note(f"waiting for a place for {len(self.team.computers)} computing actors: Ray has {have}")

    def resolve(
        self,
        settings: BatchSettings,
        models: Sequence[FaceModel],
        images: int,
        before: dict[str, Any] | None,
        note: Callable[[str], None],
    ) -> Resolved:
        """See `engine.site.Site`: an actor does it, as only actors may have the device."""
        for attempt in range(1, LOADS + 1):
            call = self.first.actor.call.remote(_resolve, self.request.backend, settings, images, before)
            try:
                answer, found = self.ray.get(call)
                break
            except self.ray.exceptions.RayError as exc:
                if attempt == LOADS:
                    raise RequestError(
                        f"actors died {LOADS} times while they loaded the models, {self.first.name} the "
                        "last time: see Ray's logs"
                    ) from exc
                note(f"{self.first.name} died while it loaded the models: another one does it")
                self.first = self._first(note)
                if self.first.hello is None or self.first.hello.device_name != self.device_name:
                    raise RequestError(
                        f"{self.first.name} computes on another device than {self.device_name}, where this "
                        "run began: go on with --resume on machines of one kind"
                    ) from exc
        if answer.fatal is not None:
            raise answer.fatal
        if answer.error:
            raise RequestError(f"{self.first.name} cannot load the models: {answer.error}")
        for text in found.notes:
            note(text)
        self.files = found.files
        return Resolved(found.settings, BatchFunction(found.settings, kept=found.kept), found.warnings)

    def driver(self, folder: Path, listener: Listener) -> Driver:
        """See `engine.site.Site`."""
        limit = TimeLimit(self.request.shard_timeout)
        files = self.ray.put(self.files)
        return RayDriver(
            self.team, folder.resolve(), self.device_name, files, listener, self.request.max_attempts, limit
        )

    def close(self) -> None:
        """See `engine.site.Site`."""
        self.team.end()

    def share(self, references: SplitReferences) -> SplitReferences:
        """See `engine.site.Site`: through Ray's object store, as actors may not see the run's folder."""
        return SplitReferences({
            number: _Shipped(self.ray.put(source())) for number, source in references.sources.items()
        })  # fmt: skip


@dataclass(frozen=True)
class _Shipped:
    """References of a split identity in Ray's object store."""

    reference: Any

    def __call__(self) -> References:
        import ray

        return ray.get(self.reference)


def _resolve(asked: str, settings: BatchSettings, images: int, before: dict[str, Any] | None) -> _Resolution:
    set_up_torch(settings.threads, settings.device)
    models = [
        load_model(
            model.spec,
            preprocessing=model.preprocessing,
            trust_code=settings.trust_code,
            device=settings.device,
        )
        for model in settings.models
    ]
    notes: list[str] = []
    settings, programs = resolve_backends(asked, settings, models, images, before, notes.append)
    kept = {name: program.kept for name, program in programs.items()}
    return _Resolution(
        settings,
        {
            name: program_warnings(program, settings.activation, settings.registration)
            for name, program in programs.items()
        },
        kept,
        {path.name: path.read_bytes() for path in kept.values() if path is not None},
        tuple(notes),
    )


def _threads(processors: Sequence[int], workers: int) -> int:
    """As many threads each as let all workers find a place on nodes with so many processors."""
    for threads in range(max(processors, default=1), 1, -1):
        if sum(count // threads for count in processors) >= workers:
            return threads
    return 1
