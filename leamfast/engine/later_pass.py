"""What passes over a finished run have in common: frozen settings, threads, and the index."""

import os
from pathlib import Path
from typing import Any

from leamfast.errors import RequestError
from leamfast.faces.regions import REGIONS
from leamfast.store.atomic import write_atomically
from leamfast.store.index import build_index
from leamfast.store.results import Results
from leamfast.store.run_folder import RunFolder
from leamfast.store.seal import write_sealed
from leamfast.store.settings import read_settings

__all__ = ["default_threads", "frozen_before", "rewrite_index"]


def frozen_before(settings: Path, what: str) -> dict[str, Any]:
    """Frozen settings of a pass that goes on.

    Args:
        settings: its file.
        what: how its results are spoken of, such as `how its pairs were compared`.

    Raises:
        RequestError: the file does not hold them.
    """
    frozen = read_settings(settings).get("frozen")
    if not isinstance(frozen, dict) or not isinstance(frozen.get("threads"), int):
        raise RequestError(f"{settings} does not say {what}: throw them away with --overwrite")
    return frozen


def default_threads(workers: int) -> int:
    """Threads of each of so many workers, which share the cores."""
    return max(1, (os.cpu_count() or 1) // max(1, workers))


def rewrite_index(folder: RunFolder, results: Results) -> None:
    """Make the index anew, with what passes have added, and failures.csv.

    Of an incomplete run failures.csv stays as the run wrote it, which knows why shards are missing.
    """
    paths = [path for path, _ in results.parts]
    shards = int(results.file.attrs["shards"])
    _, failures, index = build_index(folder.root, paths, shards, REGIONS)
    if results.complete:
        write_atomically(folder.failures, failures)
    write_sealed(folder.index, index)
