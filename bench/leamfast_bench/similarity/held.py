"""The most memory that going through all tiles of a matrix of coefficients takes, by the number of maps."""

import multiprocessing as mp
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from leamfast_bench.faces.environment import environment
from leamfast_bench.maps.memory import peak_memory
from leamfast_bench.similarity.rows import WrongAnswerError
from leamfast_kernels import bhattacharyya_reference, bhattacharyya_tiles

__all__ = ["measure_held", "tiles_growth"]

FLOAT = 4  # bytes
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # whatever is larger, as soon as it is freed
SAMPLE = 64  # coefficients that are compared with the reference
LIMIT = 1e-5


def measure_held(
    counts: Sequence[int], side: int, tile: int, threads: int, device: str, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Peak memory for each number of maps, each in processes of its own.

    glibc keeps freed blocks, and where each lies depends on those before it, so that a process grows long
    after it holds no more than before: one is as any is, in the other what is freed is given back at once.

    Args:
        counts: of maps.
        side: of them.
        tile: maps a side of a tile.
        threads: that compute.
        device: where they lie.
        note: told of progress.

    Raises:
        WrongAnswerError: a coefficient is wrong.
    """
    found = []
    for count in counts:
        about: dict[str, Any] = {"maps": count, "tile": tile, "maps_bytes": FLOAT * count * side**2}
        about |= {"matrix_bytes": FLOAT * count**2}
        for name, variables in (("peak_bytes", {}), ("held_bytes", GIVEN_BACK)):
            with environment(**variables), ProcessPoolExecutor(1, mp.get_context("spawn")) as process:
                about[name] = process.submit(tiles_growth, count, side, tile, threads, device).result()
        found.append(about)
        if about["held_bytes"] is not None:
            note(f"  tiles of {count} maps: {about['held_bytes'] / 2**20:.0f} MiB")
    return found


def tiles_growth(count: int, side: int, tile: int, threads: int, device: str) -> int | None:
    """Bytes beyond the maps, which lie in memory; None where the system does not tell.

    Raises:
        WrongAnswerError: a coefficient is wrong.
    """
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((count, side, side), generator=generator).pow_(4).to(device)
    # A few maps first: what libraries take once and keep is no tile's.
    for _ in bhattacharyya_tiles(maps[: 2 * min(tile, 64)], tile=min(tile, 64)):
        pass
    pairs = torch.randint(count, (SAMPLE, 2), generator=generator).sort(dim=1).values
    seen = torch.full((SAMPLE,), torch.nan)

    def go_through() -> None:
        for rows, columns, block in bhattacharyya_tiles(maps, tile=tile):
            inside = (pairs[:, 0] >= rows.start) & (pairs[:, 0] < rows.stop)
            inside &= (pairs[:, 1] >= columns.start) & (pairs[:, 1] < columns.stop)
            i, j = (pairs[inside] - torch.tensor([rows.start, columns.start])).to(device).unbind(dim=1)
            seen[inside] = block[i, j].cpu()

    peak = peak_memory(go_through, device)
    wanted = bhattacharyya_reference(maps, maps, pairs.to(device)).cpu()
    error = float(((seen - wanted).abs() / wanted).nan_to_num(nan=torch.inf).max())
    if not error <= LIMIT:
        raise WrongAnswerError(f"tiles of {count} maps: off by {error:.2g}, where {LIMIT:g} is allowed")
    return peak
