"""occlude: images with the support of a map replaced, for several percents and fills."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leamfast_kernels import occlude, occlude_reference, support
from leamfast_kernels.tuning import SELECTION_BLOCK
from tests.kernels.test_support import CENTRES, flat, some_maps

PERCENTS = [5, 100, 0.01, 40, 5]
SHAPE = (4, 3, 13, 17)  # of images
FILLS = {
    "colours": (3, 3, 1, 1),
    "pictures": (2, 3, 13, 17),
    "of each image": (2, 4, 3, 13, 17),
    "one grey": (1, 1, 1, 1),
    "rows": (2, 4, 1, 1, 17),
}


def whole(fills: Tensor) -> Tensor:
    """Fills with an axis of images."""
    return fills[:, None] if fills.dim() == 4 else fills


def in_layout(layout: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images and maps."""
    maps = some_maps(4, 5, 3)
    if layout == "channels_last":
        images = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last)
        maps = maps.mT.contiguous().mT
    elif layout == "sliced":
        images, maps = torch.randn(8, 6, 13, 19)[::2, ::2, :, 1:-1], some_maps(8, 5, 5)[::2, :, 1:-1]
    elif layout == "expanded":
        images, maps = torch.randn(1, 1, 13, 17).expand(SHAPE), maps[:1].expand(4, -1, -1)
    else:
        images = torch.randn(SHAPE)
    assert images.shape == SHAPE
    return images.to(dtype), maps.to(dtype)


# Exact numbers


def test_a_case_worked_by_hand() -> None:
    maps = torch.tensor([[[1.0, 5.0, 0.0], [3.0, -2.0, 4.0]]])
    images = torch.arange(12.0).reshape(1, 2, 2, 3)
    fills = torch.tensor([[[[-1.0]], [[-2.0]]], [[[-3.0]], [[-4.0]]]])
    found = occlude(images, maps, [50, 100 / 6], fills)
    assert found.tolist() == [
        [
            [
                [[[0, -1, 2], [-1, 4, -1]], [[6, -2, 8], [-2, 10, -2]]],
                [[[0, -3, 2], [-3, 4, -3]], [[6, -4, 8], [-4, 10, -4]]],
            ],
            [
                [[[0, -1, 2], [3, 4, 5]], [[6, -2, 8], [9, 10, 11]]],
                [[[0, -3, 2], [3, 4, 5]], [[6, -4, 8], [9, 10, 11]]],
            ],
        ]
    ]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, -1.0, 0.0])
def test_an_image_without_a_support_stays(bad) -> None:
    images, maps = torch.randn(3, 2, 8, 8), torch.rand(3, 4, 4) + 0.1
    if bad <= 0:
        maps[1] = bad
    else:
        maps[1, 2, 3] = bad
    found = occlude(images, maps, [10, 100], torch.full((1, 2, 1, 1), 9.0))
    assert torch.equal(found[1, :, 0], images[1].expand(2, -1, -1, -1))
    assert (found[[0, 2], 1] == 9).all()


def test_what_is_in_images_and_fills_stays_as_it_is() -> None:
    images, fills = torch.full((1, 1, 1, 4), torch.nan), torch.full((1, 1, 1, 1), -torch.inf)
    images[..., 3] = torch.inf
    found = occlude(images, torch.tensor([[[1.0, 0.0, 2.0, 0.0]]]), [100], fills).flatten()
    assert found.isnan().tolist() == [False, True, False, False]
    assert found[[0, 2, 3]].tolist() == [-torch.inf, -torch.inf, torch.inf]


# Against the reference


@pytest.mark.parametrize("fills", FILLS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "expanded"])
def test_equals_the_reference(layout, fills, dtype, poisoned) -> None:
    images, maps = in_layout(layout, dtype)
    instead = torch.randn(FILLS[fills]).to(dtype)
    if layout != "contiguous":
        instead = instead.mT.contiguous().mT
    kept = images.clone(), maps.clone(), instead.clone()
    for centres in (None, CENTRES):
        found = occlude(images, maps, PERCENTS, instead, centres)
        assert found.is_contiguous()
        assert found.dtype == dtype
        assert found.shape == (4, 5, instead.shape[0], *SHAPE[1:])
        assert torch.equal(found, occlude_reference(images, maps, PERCENTS, whole(instead), flat(centres)))
    assert all(torch.equal(*both) for both in zip((images, maps, instead), kept, strict=True))


def test_equals_the_reference_over_several_blocks(poisoned) -> None:
    assert SELECTION_BLOCK // 700**2 == 2, "the shape no longer spans blocks"
    images, maps, fills = torch.randn(5, 1, 700, 700), some_maps(5, 14, 14), torch.randn(2, 5, 1, 700, 1)
    assert torch.equal(occlude(images, maps, [3], fills), occlude_reference(images, maps, [3], fills))


def test_maps_of_another_dtype_than_images() -> None:
    images, maps = torch.randn(2, 3, 9, 9).bfloat16(), some_maps(2, 4, 4)
    fills = torch.zeros(1, 3, 1, 1).bfloat16()
    found = occlude(images, maps, [20], fills)
    assert torch.equal(
        found == images[:, None, None],
        ~support(maps, [20], 9)[:, :, None, None] | (images == 0)[:, None, None],
    )


def test_an_empty_batch() -> None:
    assert occlude(torch.ones(0, 3, 5, 6), torch.ones(0, 2, 2), [5, 9], FILL).shape == (0, 2, 1, 3, 5, 6)


# Laws


@settings(deadline=None, max_examples=40)
@given(
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    percents=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
    levels=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_laws(cells, size, percents, levels, seed) -> None:
    torch.manual_seed(seed)
    maps, images = some_maps(3, *cells, levels=levels), torch.randn(3, 2, *size)
    fills = torch.randn(2, 3, 2, *size)
    found = occlude(images, maps, percents, fills)
    masks = support(maps, percents, size)[:, :, None, None].expand_as(found)
    assert torch.equal(found[masks], fills.transpose(0, 1)[:, None].expand_as(found)[masks])
    assert torch.equal(found[~masks], images[:, None, None].expand_as(found)[~masks])
    # An image that stands in for itself changes nothing, and fills do not know of each other.
    assert torch.equal(
        occlude(images, maps, percents, images[None])[:, :, 0], images[:, None].expand_as(found[:, :, 0])
    )
    assert torch.equal(occlude(images, maps, percents, fills.flip(0)), found.flip(2))
    assert torch.equal(occlude(images, maps, percents[::-1], fills), found.flip(1))


# Batch equals loop


@pytest.mark.parametrize("centres", [None, CENTRES])
def test_batch_equals_loop(centres, threads) -> None:
    images, maps, fills = torch.randn(40, 3, 48, 48), some_maps(40, 7, 7), torch.randn(2, 3, 1, 1)
    batch = occlude(images, maps, [10, 50], fills, centres)
    pieces = [
        occlude(few, of, [10, 50], fills, centres)
        for few, of in zip(images.split(7), maps.split(7), strict=True)
    ]
    assert torch.equal(torch.cat(pieces), batch)


# The operator


@pytest.mark.parametrize("centres", [None, CENTRES])
def test_opcheck(centres, dtype) -> None:
    images, maps = in_layout("channels_last", dtype)
    arguments = (images, maps, [5.0, 100.0], torch.randn(2, 1, 3, 1, 1).to(dtype), flat(centres))
    torch.library.opcheck(torch.ops.leamfast.occlude.default, arguments)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_into_one_graph(backend) -> None:
    compiled = torch.compile(
        lambda images, maps: occlude(images * 2, maps, PERCENTS, FILL), fullgraph=True, backend=backend
    )
    images, maps = in_layout("contiguous", torch.float32)
    assert torch.equal(compiled(images, maps), occlude(images * 2, maps, PERCENTS, FILL))


def test_the_result_carries_no_gradient() -> None:
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    assert not occlude(images, torch.rand(1, 2, 2), [5], FILL.clone().requires_grad_()).requires_grad


# Bad input

GOOD, MAPS, FILL = torch.ones(2, 3, 8, 8), torch.ones(2, 3, 4), torch.zeros(1, 3, 1, 1)
FITTING = r"^fills must have shape \(F, C, H, W\) or \(F, N, C, H, W\), F > 0 .* \(2, 3, 8, 8\), got "


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, MAPS, [5], FILL), TypeError, r"^images must be a torch.Tensor, got NoneType$"),
        ((GOOD, MAPS, [5], 0.5), TypeError, r"^fills must be a torch.Tensor, got float$"),
        ((GOOD.byte(), MAPS, [5], FILL), TypeError, r"^images must be float32, .* got torch.uint8$"),
        ((GOOD[0], MAPS, [5], FILL), ValueError, r"^images must have shape .* got \(3, 8, 8\)$"),
        ((GOOD[:, :0], MAPS, [5], FILL), ValueError, r"^images must have shape .* got \(2, 0, 8, 8\)$"),
        ((GOOD, MAPS.int(), [5], FILL), TypeError, r"^maps must be float32, .* got torch.int32$"),
        ((GOOD, MAPS[:1], [5], FILL), ValueError, r"^maps must be as many as images, 2, got 1$"),
        ((GOOD, MAPS, [0], FILL), ValueError, r"^percents must hold .* in \(0, 100\], got \[0\]$"),
        ((GOOD, MAPS, [], FILL), ValueError, r"^percents must hold at least one number"),
        ((GOOD, MAPS, [5], FILL.half()), ValueError, r"^fills must have the dtype of images, .*float16$"),
        ((GOOD, MAPS, [5], FILL[0]), ValueError, FITTING + r"\(3, 1, 1\)$"),
        ((GOOD, MAPS, [5], FILL[:0]), ValueError, FITTING + r"\(0, 3, 1, 1\)$"),
        ((GOOD, MAPS, [5], torch.zeros(1, 3, 7, 8)), ValueError, FITTING + r"\(1, 3, 7, 8\)$"),
        ((GOOD, MAPS, [5], torch.zeros(1, 4, 3, 8, 8)), ValueError, FITTING + r"\(1, 4, 3, 8, 8\)$"),
        ((GOOD, MAPS.to("meta"), [5], FILL), ValueError, r"^maps must be on the device of images, cpu, got"),
        ((GOOD, MAPS, [5], FILL.to("meta")), ValueError, r"^fills must be on the device of images, cpu, got"),
        ((GOOD, MAPS, [5], FILL, ((0, 1), (0, 0))), ValueError, r"^centres must have finite .* got "),
    ],
)
def test_bad_input(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        occlude(*arguments)
