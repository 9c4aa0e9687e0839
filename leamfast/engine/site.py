"""Where a run is computed: what devices there are, which backends work on them, and who drives the work."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from leamfast.engine.batch import BatchFunction
from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.local import LocalDriver
from leamfast.engine.programs import resolve_backends
from leamfast.engine.request import BatchRequest
from leamfast.engine.run import Driver, Listener
from leamfast.engine.slices import SplitReferences
from leamfast.engine.time_limit import TimeLimit
from leamfast.leam.diagnostics import program_warnings
from leamfast.models.devices import device_name
from leamfast.models.face_model import FaceModel

__all__ = ["LocalSite", "Resolved", "Site"]


@dataclass(frozen=True)
class Resolved:
    """A run with its backends chosen.

    Attributes:
        settings: of the run, with them.
        function: computes its shards.
        warnings: model -> tap -> what is known against it.
    """

    settings: BatchSettings
    function: BatchFunction
    warnings: Mapping[str, Mapping[str, Sequence[str]]]


class Site(Protocol):
    """Where a run is computed.

    Attributes:
        device: where models compute; `device_name`: what it is called.
        finding_device: where faces are found.
        threads: how many a process computes with, unless the request says so.
        workers: how many processes compute.
    """

    device: str
    device_name: str
    finding_device: str
    threads: int
    workers: int

    def resolve(
        self,
        settings: BatchSettings,
        models: Sequence[FaceModel],
        images: int,
        before: dict[str, Any] | None,
        note: Callable[[str], None],
    ) -> Resolved:
        """Choose backends, and build and check programs by them: see `resolve_backends`."""

    def driver(self, folder: Path, listener: Listener) -> Driver:
        """Who drives a run whose results go into a folder."""

    def share(self, references: SplitReferences) -> SplitReferences:
        """References as workers here can get them."""

    def close(self) -> None:
        """End all workers."""


class LocalSite:
    """The machine that we run on: in one process, or in worker processes of it."""

    def __init__(self, request: BatchRequest) -> None:
        self.request = request
        self.device = self.finding_device = request.device
        self.device_name = device_name(request.device)
        self.threads = max(1, (os.cpu_count() or 1) // max(1, request.workers))
        self.workers = max(1, request.workers)

    def resolve(
        self,
        settings: BatchSettings,
        models: Sequence[FaceModel],
        images: int,
        before: dict[str, Any] | None,
        note: Callable[[str], None],
    ) -> Resolved:
        """See `Site`."""
        settings, programs = resolve_backends(self.request.backend, settings, models, images, before, note)
        warnings = {
            name: program_warnings(program, settings.activation, settings.registration)
            for name, program in programs.items()
        }
        return Resolved(settings, BatchFunction(settings, programs), warnings)

    def driver(self, folder: Path, listener: Listener) -> Driver:
        """See `Site`."""
        request = self.request
        return LocalDriver(request.workers, request.max_attempts, TimeLimit(request.shard_timeout))

    def share(self, references: SplitReferences) -> SplitReferences:
        """See `Site`."""
        return references

    def close(self) -> None:
        """See `Site`: those of a driver end with its run."""
