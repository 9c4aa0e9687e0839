"""The result folder: which file lies where, and one lock."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from leamfast.errors import RequestError
from leamfast.store.atomic import sweep

__all__ = ["RunFolder"]


class RunFolder:
    """Paths inside a result folder.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = root / "run.toml"
        self.index = root / "index.h5"
        self.failures = root / "failures.csv"
        self.progress = root / "progress.jsonl"
        self.shards = root / "shards"
        self.references = root / "references"
        self.tables = root / "tables"
        self.pairs = root / "pairs"
        self.compare_settings = self.pairs / "compare.toml"
        self.occlusion = root / "occlusion"
        self.occlude_settings = self.occlusion / "occlude.toml"

    def part(self, shard: int) -> Path:
        """Where the part of a shard lies."""
        return self.shards / f"part-{shard:05d}.h5"

    def reference(self, shard: int) -> Path:
        """Where the embeddings of a slice of a split identity lie, for its other slices."""
        return self.references / f"part-{shard:05d}.h5"

    def finished(self, shards: int) -> list[int]:
        """Numbers of the shards whose parts are there; a part that is there is whole."""
        return [shard for shard in range(shards) if self.part(shard).is_file()]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The only run in this folder; what a killed run left under temporary names is removed.

        So is, at the end, what workers left that were killed in this one.

        Raises:
            RequestError: another run holds the folder, or it cannot be made.
        """
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise RequestError(f"result folder {self.root} cannot be made: {exc.strerror}") from exc
        lock = FileLock(self.root / ".lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout as exc:
            raise RequestError(
                f"result folder {self.root} is in use by another run: wait for it or stop it"
            ) from exc
        with held:
            self._sweep()
            try:
                yield
            finally:
                with suppress(OSError):  # a folder that refuses to be written has ended the run already
                    self._sweep()

    def _sweep(self) -> None:
        for folder in (self.root, self.shards, self.references, self.pairs, self.occlusion):
            sweep(folder)
