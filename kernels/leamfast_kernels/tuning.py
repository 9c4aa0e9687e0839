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

# Costs of a block of pairs whose Sinkhorn iterations or certificates are computed in plain torch: 8 MiB of
# float64 for each of the five arrays that there are at a time. A GPU takes larger ones.
SINKHORN_BLOCK = 1024 * 1024
SINKHORN_BLOCK_GPU = 16 * 1024 * 1024

# Sinkhorn's schedule. Level k runs at eps = FIRST / 2^k pixels, but not below SLOW until level FINE, nor
# below LAST from there on: FEW iterations each while k is less than COARSE, MANY from then on, until the
# bracket of a pair is narrow enough. Brackets are 1% wide at 1/8 to 1/16 of a pixel; maps that differ by
# short ways, and L1, which has many plans as good, need more.
SINKHORN_FIRST = 8.0
SINKHORN_SLOW = 1 / 32
SINKHORN_LAST = 1 / 64
SINKHORN_COARSE = 4
SINKHORN_FINE = 12
SINKHORN_LEVELS = 24
SINKHORN_FEW = 6
SINKHORN_MANY = 20

# Over-relaxation. Median bracket on 28x28: 1.05% with 1.0, 0.51% with 1.5 and 0.39% with 1.7, after 140
# iterations; 0.34% with 1.8 and 0.43% with 1.9, after 124. 1.9 wins where eps is no longer halved, from level
# SETTLED on. Above, or where a level comes too soon, iterations can diverge: a level that left a wider
# bracket than the one before it has what is above 1 cut to BACK_OFF of it.
SINKHORN_RELAXATION = 1.8
SINKHORN_RELAXATION_SLOW = 1.9
SINKHORN_SETTLED = 8
SINKHORN_BACK_OFF = 0.6

# Rows and columns of the tile of costs that a program of Sinkhorn holds on a GPU.
SINKHORN_TILE = (32, 32)


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
