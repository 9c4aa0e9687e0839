"""The next shard's crops, made in the background while a GPU computes the one before."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from leamfast.engine.crops import Crops
from leamfast.engine.plan import Shard

__all__ = ["CropsAhead"]


class CropsAhead:
    """Crops of shards, one of which may be begun before it is asked for.

    Args:
        make: shard -> crops, in whatever thread.
    """

    def __init__(self, make: Callable[[Shard], Crops]) -> None:
        self.make = make
        self.begun: tuple[Shard, Future[Crops]] | None = None

    def begin(self, shard: Shard) -> None:
        """Start on a shard, unless it is begun; another that was begun and not taken is forgotten."""
        if self.begun is not None and self.begun[0] == shard:
            return
        crops: Future[Crops] = Future()

        def work() -> None:
            try:
                crops.set_result(self.make(shard))
            except BaseException as exc:  # raised again where the crops are taken
                crops.set_exception(exc)

        self.begun = shard, crops
        threading.Thread(target=work).start()  # which Python waits for at its end

    def take(self, shard: Shard) -> Crops:
        """The crops of a shard, begun or not; raises what making them raised."""
        if self.begun is None or self.begun[0] != shard:
            return self.make(shard)
        crops = self.begun[1]
        self.begun = None
        return crops.result()
