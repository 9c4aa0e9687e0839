"""The operations that are measured. To add one, write its cases and its line in `OPERATIONS`."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from leamfast_bench.kernels import plain
from leamfast_bench.kernels.case import Arguments, Case, Form, Row, leamfast_row, plain_row

__all__ = ["COMPILED", "OPERATIONS", "PERCENTS"]

COMPILED = "torch.compile of the reference"
PERCENTS = (1.0, 2.0, 5.0, 10.0, 20.0)
CLASSES = 19
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
# Equal pixels, as a resize makes them at the border, go in by lower index; torch.topk takes any of them.
TIES = 0.1
ROUNDED = 3e-2  # of products in bfloat16


def aggregate_cases(form: Form) -> Iterator[Case]:
    """Taps of a network, in both memory layouts."""
    from leamfast_kernels.aggregate import aggregate, aggregate_reference

    def exactly(acts: Tensor, grads: Tensor) -> Tensor:
        return aggregate_reference(acts.double(), grads.double())

    for dtype in form.dtypes:
        for channels, height, width in form.taps:
            for layout, name in ((torch.contiguous_format, "NCHW"), (torch.channels_last, "channels_last")):
                shape = (form.images, channels, height, width)

                def draw(shape=shape, dtype=dtype, layout=layout) -> Arguments:
                    made = [torch.randn(shape, device=form.device).to(dtype) for _ in range(2)]
                    return tuple(x.contiguous(memory_format=layout) for x in made)

                number = form.images * height * width
                yield Case(
                    "aggregate",
                    f"{form.images} x {channels}x{height}x{width} {NAMES[dtype]} {name}",
                    draw,
                    exactly,
                    (
                        leamfast_row(aggregate),
                        plain_row(plain.aggregate, ROUNDED if dtype == torch.bfloat16 else 1e-5),
                        Row(COMPILED, aggregate_reference, 1e-5),
                    ),
                    2 * number * channels * dtype.itemsize + 4 * number,
                )


def aggregate_backward_cases(form: Form) -> Iterator[Case]:
    """The same taps with a BatchNorm and a PReLU behind them."""
    from leamfast_kernels.aggregate_backward import aggregate_backward, aggregate_backward_reference

    for dtype in form.dtypes:
        for channels, height, width in form.taps:

            def draw(shape=(form.images, channels, height, width), dtype=dtype) -> Arguments:
                made = [torch.randn(shape, device=form.device).to(dtype) for _ in range(2)]
                scale, shift, slope = torch.rand((3, shape[1]), device=form.device) + 0.1
                return (*made, scale, shift - 0.6, slope / 4)

            # Near the kink of a PReLU either of its slopes is right.
            limit = ROUNDED if dtype == torch.bfloat16 else 1e-3
            number = form.images * height * width
            yield Case(
                "aggregate_backward",
                f"{form.images} x {channels}x{height}x{width} {NAMES[dtype]} NCHW",
                draw,
                aggregate_backward_reference,
                (
                    leamfast_row(aggregate_backward, limit),
                    plain_row(plain.aggregate_backward, limit),
                    Row(COMPILED, aggregate_backward_reference, limit),
                ),
                3 * number * channels * dtype.itemsize + 4 * number,
            )


def support_cases(form: Form) -> Iterator[Case]:
    """Supports of maps at five percentages."""
    from leamfast_kernels.support import support, support_reference

    for cells in form.cells:
        yield Case(
            "support",
            f"{form.maps} x {cells}x{cells} -> {form.side}x{form.side}, {len(PERCENTS)} percents",
            partial(_maps, form, cells),
            lambda maps: support_reference(maps, PERCENTS, form.side, form.side),
            (
                leamfast_row(lambda maps: support(maps, PERCENTS, form.side), 1e-3),
                plain_row(lambda maps: plain.support(maps, PERCENTS, form.side), TIES),
                Row(COMPILED, lambda maps: support_reference(maps, PERCENTS, form.side, form.side), TIES),
            ),
            form.maps * (4 * cells**2 + len(PERCENTS) * form.side**2),
        )


def region_share_cases(form: Form) -> Iterator[Case]:
    """Shares of 19 classes in supports at five percentages."""
    from leamfast_kernels.region_share import region_share, region_share_reference

    def right(maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return region_share_reference(maps, labels, PERCENTS, form.side, form.side)

    for cells in form.cells:

        def draw(cells=cells) -> Arguments:
            shape = (form.maps, form.side, form.side)
            labels = torch.randint(CLASSES, shape, dtype=torch.uint8, device=form.device)
            return (*_maps(form, cells), labels)

        yield Case(
            "region_share",
            f"{form.maps} x {cells}x{cells} -> {form.side}x{form.side}, {len(PERCENTS)} percents",
            draw,
            right,
            (
                leamfast_row(lambda maps, labels: region_share(maps, labels, PERCENTS, form.side), 1e-3),
                plain_row(lambda maps, labels: plain.region_share(maps, labels, PERCENTS, form.side), TIES),
                Row(
                    "one topk and scatter",
                    lambda maps, labels: plain.region_share_scattered(maps, labels, PERCENTS, form.side),
                    TIES,
                ),
                Row(COMPILED, right, TIES),
            ),
            form.maps * (4 * cells**2 + form.side**2 + 4 * len(PERCENTS) * (CLASSES + 1)),
        )


def occlude_cases(form: Form) -> Iterator[Case]:
    """Images with supports at five percentages filled with two colours."""
    from leamfast_kernels.occlude import occlude, occlude_reference

    count = max(1, form.maps // 8)
    pixels = 3 * form.side**2

    def right(images: Tensor, maps: Tensor, fills: Tensor) -> Tensor:
        return occlude_reference(images, maps, PERCENTS, fills[:, None])

    for cells in form.cells:

        def draw(cells=cells) -> Arguments:
            images = torch.randn((count, 3, form.side, form.side), device=form.device)
            fills = torch.randn((2, 3, 1, 1), device=form.device)
            return images, _map(form, count, cells), fills

        yield Case(
            "occlude",
            f"{count} images of {form.side}x{form.side}, maps of {cells}x{cells}, "
            f"{len(PERCENTS)} percents, 2 fills",
            draw,
            right,
            (
                leamfast_row(lambda images, maps, fills: occlude(images, maps, PERCENTS, fills), 1e-2),
                plain_row(lambda images, maps, fills: plain.occlude(images, maps, PERCENTS, fills), TIES),
                Row(COMPILED, right, TIES),
            ),
            4 * count * (cells**2 + pixels * (1 + 2 * len(PERCENTS))),
        )


def pairs_cases(form: Form) -> Iterator[Case]:
    """Maps compared row by row, by a list of pairs, and on their supports."""
    from leamfast_kernels.bhattacharyya import bhattacharyya, bhattacharyya_reference

    count = form.compared
    for grid in form.grids:

        def draw(grid=grid) -> Arguments:
            return tuple(_map(form, count, grid) for _ in range(2))

        def draw_listed(draw=draw) -> Arguments:
            return (*draw(), torch.randint(count, (2 * count, 2), device=form.device))

        maps = f"{grid}x{grid} maps"
        read = 2 * 4 * grid**2
        yield Case(
            "bhattacharyya",
            f"{count} pairs of {maps}",
            draw,
            bhattacharyya_reference,
            (
                leamfast_row(bhattacharyya),
                plain_row(plain.pairs),
                Row(COMPILED, bhattacharyya_reference, 1e-5),
            ),
            count * (read + 4),
        )
        yield Case(
            "bhattacharyya",
            f"{2 * count} listed pairs of {count} {maps}",
            draw_listed,
            bhattacharyya_reference,
            (
                leamfast_row(bhattacharyya),
                plain_row(plain.pairs),
                Row(COMPILED, bhattacharyya_reference, 1e-5),
            ),
            2 * count * (read + 16 + 4),
        )


def matrix_cases(form: Form) -> Iterator[Case]:
    """All maps with all others, with themselves, and on their supports."""
    from leamfast_kernels.bhattacharyya_matrix import bhattacharyya_matrix, bhattacharyya_matrix_reference

    count = form.compared
    for grid in form.grids:

        def draw(grid=grid) -> Arguments:
            return tuple(_map(form, count, grid) for _ in range(2))

        bare = Row("bare matrix product", lambda p, q: p @ q.T, 1e-5, _roots)
        maps = f"{count} x {count} maps of {grid}x{grid}"
        transferred, products = 4 * (2 * count * grid**2 + count**2), 2 * count**2 * grid**2
        yield Case(
            "bhattacharyya_matrix",
            maps,
            draw,
            bhattacharyya_matrix_reference,
            (
                leamfast_row(bhattacharyya_matrix),
                bare,
                plain_row(plain.matrix),
                Row(COMPILED, bhattacharyya_matrix_reference, 1e-5),
            ),
            transferred,
            products,
        )
        yield Case(
            "bhattacharyya_matrix",
            f"{maps}, with themselves",
            lambda draw=draw: draw()[:1] * 2,
            bhattacharyya_matrix_reference,
            (leamfast_row(bhattacharyya_matrix), bare, plain_row(plain.matrix)),
            transferred - 4 * count * grid**2,
            (count + 1) * count * grid**2,
        )
        # Whoever writes this in PyTorch has the supports already: the product is what is left.
        yield Case(
            "bhattacharyya_matrix",
            f"{maps}, at 10 percent",
            draw,
            partial(bhattacharyya_matrix_reference, percent=10),
            (
                leamfast_row(partial(bhattacharyya_matrix, percent=10)),
                Row("bare matrix product", bare.call, 1e-5, _roots_of_supports),
            ),
            transferred,
            products,
        )


OPERATIONS: dict[str, Callable[[Form], Iterator[Case]]] = {
    "aggregate": aggregate_cases,
    "aggregate_backward": aggregate_backward_cases,
    "support": support_cases,
    "region_share": region_share_cases,
    "occlude": occlude_cases,
    "bhattacharyya": pairs_cases,
    "bhattacharyya_matrix": matrix_cases,
}
"""Operation -> its cases."""


def _map(form: Form, count: int, side: int) -> Tensor:
    """Maps as a ReLU leaves them, half of their pixels zero."""
    return torch.randn((count, side, side), device=form.device).relu_()


def _maps(form: Form, cells: int) -> Arguments:
    return (_map(form, form.maps, cells),)


def _roots(p: Tensor, q: Tensor) -> Arguments:
    return plain.roots(p), plain.roots(q)


def _roots_of_supports(p: Tensor, q: Tensor) -> Arguments:
    from leamfast_kernels.support import support

    return tuple(plain.roots(maps * support(maps, [10], tuple(maps.shape[1:]))[:, 0]) for maps in (p, q))
