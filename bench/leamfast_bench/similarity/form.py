"""How much is measured."""

from dataclasses import dataclass

from leamfast_kernels.tuning import MATRIX_TILE

__all__ = ["FULL", "SMALL", "Form"]


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        people: synthetic ones.
        images: of each.
        grid: cells a side of the maps whose distances are taken.
        pairs: of maps in a call on a CPU.
        side: of the images in which supports lie, and
        percent: of their pixels that are in one.
        supports: pairs of supports in a call.
        rounds: in which each row is timed, in turn.
        approximated: pairs that geomloss is given, and
        approximations: rounds of these.
        compared: maps that are all compared with all, and
        cells: a side of them.
        held: numbers of maps for which the tiles of their matrix are watched, fewest first, and
        tile: maps a side of a tile.
        bracketed: pairs in a call on a GPU, and
        checked: how many of them are solved exactly too.
        all_people: people on a GPU whose means are all compared with all; 0: none.
    """

    people: int
    images: int
    grid: int
    pairs: int
    side: int
    percent: int
    supports: int
    rounds: int
    approximated: int
    approximations: int
    compared: int
    cells: int
    held: tuple[int, ...]
    tile: int
    bracketed: int
    checked: int
    all_people: int


FULL = Form(
    people=32,
    images=4,
    grid=28,
    pairs=48,
    side=112,
    percent=1,
    supports=400,
    rounds=5,
    approximated=12,
    approximations=3,
    compared=2000,
    cells=56,
    held=(1000, 6000, 20_000),  # of tiles of one size the last two
    tile=MATRIX_TILE,
    bracketed=4096,
    checked=64,
    all_people=1000,
)
SMALL = Form(
    people=4,
    images=3,
    grid=28,
    pairs=8,
    side=112,
    percent=1,
    supports=16,
    rounds=2,
    approximated=2,
    approximations=1,
    compared=300,
    cells=56,
    held=(1000, 3000),
    tile=500,
    bracketed=64,
    checked=8,
    all_people=0,
)
