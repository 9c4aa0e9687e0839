"""Every constant that is tuned by measurement; none of them changes a value that an op returns."""

from __future__ import annotations

# Elements of one block of products in `aggregate` on a CPU. 4 MiB of float32 stay in a last-level cache and
# are allocated once; the whole product of a stem layer is fetched from the system page by page at every call.
AGGREGATE_BLOCK = 1024 * 1024

# Pixels of upsampled maps that `support` and `region_share` treat at a time on a CPU (8 bytes of key each).
SELECTION_BLOCK = 1024 * 1024
