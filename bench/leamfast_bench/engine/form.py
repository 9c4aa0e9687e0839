"""How much is measured."""

from dataclasses import dataclass

from leamfast_bench.engine.places import PLACES

__all__ = ["FULL", "SMALL", "Form"]


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        people: faces that are drawn, of four photos each, and
        copies: how often each is a person of its own in real runs; 0: there are none, and no start-up.
        shard_images: images in a shard of these.
        rounds: of real runs, and of the bare program on Ray.
        places: where overhead is measured.
        shard_seconds: that a worker sleeps over a shard whose overhead is measured,
        shards: so many for each worker, and
        shard_rows: images in the part of one.
        short_seconds: that a worker sleeps over a short piece, and
        short: how many of them.
        device_pieces: for each GPU that is none; 0: there are none,
        device_seconds: of each, and
        device_photos: photos that are decoded for one, and images in its part.
        remembered: numbers of images of the runs whose memory is measured, fewest first.
        writers: numbers of processes that write,
        written_rows: images in a part of theirs,
        written: parts of each, and
        written_rounds: in which they are timed, in turn.
        read_parts: parts of a run of which maps are read,
        read_rows: images in each, and
        reads: maps that are read in each way.
    """

    people: int
    copies: int
    shard_images: int
    rounds: int
    places: tuple[str, ...]
    shard_seconds: float
    shards: int
    shard_rows: int
    short_seconds: float
    short: int
    device_pieces: int
    device_seconds: float
    device_photos: int
    remembered: tuple[int, ...]
    writers: tuple[int, ...]
    written_rows: int
    written: int
    written_rounds: int
    read_parts: int
    read_rows: int
    reads: int


FULL = Form(
    people=40,
    copies=7,
    shard_images=64,
    rounds=3,
    places=PLACES,
    shard_seconds=10.0,
    shards=3,
    shard_rows=1024,  # what the demo model makes in ten seconds, and the fastest that a CPU does
    short_seconds=0.05,
    short=60,
    device_pieces=8,
    device_seconds=2.0,
    device_photos=64,
    remembered=(1000, 50_000),
    writers=(1, 2),
    written_rows=2048,
    written=3,
    written_rounds=3,
    read_parts=100,
    read_rows=500,
    reads=1000,
)
SMALL = Form(
    people=20,
    copies=4,
    shard_images=32,
    rounds=1,
    places=PLACES,
    shard_seconds=1.0,
    shards=2,
    shard_rows=64,
    short_seconds=0.05,
    short=20,
    device_pieces=3,
    device_seconds=1.0,
    device_photos=16,
    remembered=(1000, 4000),
    writers=(1, 2),
    written_rows=256,
    written=2,
    written_rounds=1,
    read_parts=20,
    read_rows=200,
    reads=100,
)
