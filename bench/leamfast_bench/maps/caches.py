"""Compilers without what they keep from earlier runs, so that set-up times are those of a first run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

__all__ = ["empty_caches"]

VARIABLES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@contextmanager
def empty_caches() -> Iterator[None]:
    """Let compilers keep what they make in a folder of its own while the block runs."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    with TemporaryDirectory(prefix="leamfast-bench-") as folder:
        os.environ.update(dict.fromkeys(VARIABLES, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
