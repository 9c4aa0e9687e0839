"""Constants that are tuned by measurement, but for the tiles that kernels on a GPU name beside themselves.

None changes more of a value that an operation returns than the last bits of a sum.
"""

from __future__ import annotations

# Elements of one block of products in `aggregate` on a CPU. 4 MiB of float32 stay in a last-level cache and
# are allocated once; the whole product of a stem layer is fetched from the system page by page at every call.
AGGREGATE_BLOCK = 1024 * 1024

# Pixels of upsampled maps that `support` and `region_share` treat at a time on a CPU (8 bytes of key each).
SELECTION_BLOCK = 1024 * 1024

# Keys of pixels that one thread on a CPU goes through before a second is worth starting.
ALONE = 128 * 1024

# Pixels of maps whose roots are taken at a time on a CPU: 1 MiB of float32 stay in the caches of two cores.
ROOTS_BLOCK = 256 * 1024

# Maps of a side of a tile of `bhattacharyya_matrix`. Its product takes far longer than the roots before it.
MATRIX_TILE = 2048

# Maps of a strip of a tile on the diagonal, of which only what lies right of the diagonal is computed.
MATRIX_STRIP = 512

# Elements of the tile that a program of `aggregate` holds on a GPU: 32 of each tensor a thread.
AGGREGATE_TILE = 4096


def aggregate_blocks(channels: int, pixels: int, channels_last: bool) -> tuple[int, int]:
    """(channels, pixels) of a tile of `aggregate` on a GPU: long along the axis that is contiguous."""
    if channels_last:
        block_c = min(128, max(16, _power(channels)))
        return block_c, max(1, min(AGGREGATE_TILE // block_c, _power(pixels)))
    block_p = min(512, max(16, _power(pixels)))
    return max(1, min(AGGREGATE_TILE // block_p, _power(channels))), block_p


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(0, number - 1).bit_length()
