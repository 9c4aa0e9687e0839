"""Work that another thread does meanwhile, such as a hash, for which Python lets go of its lock."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

__all__ = ["beside"]

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def beside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Iterator[Callable[[], T]]:
    """Call a function beside the block; what is given waits for its result, or raises what it raised."""
    with ThreadPoolExecutor(1, thread_name_prefix="leamfast_store") as pool:
        yield pool.submit(function, *args, **kwargs).result
