"""bhattacharyya_matrix and bhattacharyya_tiles: tiles, mirror images, and products that are not rounded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from leamfast_kernels import (
    bhattacharyya,
    bhattacharyya_matrix,
    bhattacharyya_matrix_reference,
    bhattacharyya_tiles,
)
from leamfast_kernels.tuning import MATRIX_STRIP
from tests.kernels.test_bhattacharyya import some_maps

# Tiles


@pytest.mark.parametrize("percent", [None, 30])
@pytest.mark.parametrize("tile", [1, 3, 4, 100])
def test_tiles_make_up_the_matrix(tile, percent) -> None:
    p, q = some_maps(7, 5, 6), some_maps(10, 5, 6)
    found = torch.full((7, 10), -1.0)
    for rows, columns, block in bhattacharyya_tiles(p, q, percent, tile):
        assert block.shape == (rows.stop - rows.start, columns.stop - columns.start)
        assert max(block.shape) <= tile
        assert (found[rows, columns] == -1).all()
        found[rows, columns] = block
    torch.testing.assert_close(found, bhattacharyya_matrix(p, q, percent))


@pytest.mark.parametrize("tile", [1, 3, 100])
def test_of_one_set_the_tiles_from_the_diagonal_upwards_come(tile) -> None:
    p = some_maps(7, 5, 6)
    found = torch.full((7, 7), -1.0)
    kept = []
    for rows, columns, block in bhattacharyya_tiles(p, p, tile=tile):
        assert columns.start >= rows.start
        if columns == rows:
            assert torch.equal(block, block.T)
        found[rows, columns] = block
        kept.append((rows, columns, block))
    upper = torch.ones(7, 7).triu().bool()
    torch.testing.assert_close(found[upper], bhattacharyya_matrix(p)[upper])
    for rows, columns, block in kept:  # nobody writes into a tile that was given out
        assert torch.equal(found[rows, columns], block)


@pytest.mark.parametrize("tile", [2048, 700])
def test_of_one_set_the_matrix_is_symmetric_over_several_strips(tile, poisoned) -> None:
    p = some_maps(MATRIX_STRIP + 300, 5, 6)
    found = bhattacharyya_matrix(p, tile=tile)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, bhattacharyya_matrix_reference(p, p))


def test_beside_the_result_only_tiles_are_held() -> None:
    """The peak of a process that walks 4000 maps of 56x56, 50 MB of them, in tiles of 100."""
    code = (
        "import re, torch; from leamfast_kernels import bhattacharyya_tiles as tiles;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "torch.set_num_threads(1); maps = torch.rand(4000, 56, 56); list(tiles(maps[:100], tile=100));"
        "before = peak();"
        "total = sum(block.sum() for _, _, block in tiles(maps, tile=100));"
        "print(peak() - before); whole = torch.ones(4000, 56, 56).mul_(2); print(peak() - before)"
    )
    folder = bhattacharyya.__globals__["__file__"].rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    of_tiles, of_roots = (int(number) for number in done.stdout.split())  # KiB
    assert of_tiles < 24 * 1024  # where memory is short, the system itself adds some
    assert of_roots > 40 * 1024, "what would be held otherwise is not seen"


# Precision of products


SWITCHES = (
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.backends.fp32_precision = 'tf32'",
)


def test_a_product_is_never_rounded_and_the_switches_stay() -> None:
    code = f"""
import os, torch
from leamfast_kernels import bhattacharyya_matrix, bhattacharyya_reference
from leamfast_kernels.bhattacharyya_matrix import _whole_products
torch.set_num_threads(1)
flags = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
def older():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "mixed"
def check(switch):
    exec(switch)
    before = [flag.fp32_precision for flag in flags], older()
    with _whole_products():
        assert not torch._C._get_cublas_allow_tf32()  # raises where the older and the newer switch differ
        assert older() == "highest"
        assert all(flag.fp32_precision in ("none", "ieee") for flag in flags)
    p = torch.rand(60, 56, 56)
    error = (bhattacharyya_matrix(p).diagonal() - bhattacharyya_reference(p, p)).abs().max()
    assert error < 1e-6, error
    assert before == ([flag.fp32_precision for flag in flags], older())
    if "backends.fp32" in switch:
        torch.backends.fp32_precision = "ieee"
        assert flags[0].fp32_precision == "ieee", "it no longer follows the switch above it"
    print("right")
for switch in {list(SWITCHES)}:
    child = os.fork()  # a switch stays turned
    if child == 0:
        check(switch)
        os.sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""
    folder = bhattacharyya.__globals__["__file__"].rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.split() == ["right"] * len(SWITCHES), done.stderr
