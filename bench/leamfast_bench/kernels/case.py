"""A case: one operation on inputs of one shape, and who computes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Arguments", "Case", "Form", "Row", "leamfast_row", "plain_row", "size_of"]

Arguments = tuple[Any, ...]
EXACT = 1e-5  # relative error of float32 sums


@dataclass(frozen=True)
class Form:
    """How much is measured.

    Attributes:
        device: where.
        images: of a call of `aggregate`.
        taps: channels, height and width of its activations.
        dtypes: of its activations.
        maps: of a call of the operations that find supports.
        cells: sides of these maps.
        side: of the images that they are resized to.
        compared: maps a side of a matrix of all pairs.
        grids: sides of the compared maps.
        rounds: samples of every row.
        copied: bytes of the large copy.
        product: side of the factors of the large matrix product.
        compiled: whether references are compiled: for the first case of an operation, for all, or none.
    """

    device: str
    images: int
    taps: tuple[tuple[int, int, int], ...]
    dtypes: tuple[torch.dtype, ...]
    maps: int
    cells: tuple[int, ...]
    side: int
    compared: int
    grids: tuple[int, ...]
    rounds: int
    copied: int
    product: int
    compiled: str


@dataclass(frozen=True)
class Row:
    """One way to compute a case.

    Attributes:
        name: for people.
        call: arguments of the case -> result.
        limit: relative L2 error that it may have.
        prepare: arguments of the case -> arguments of `call`, before the clock starts.
    """

    name: str
    call: Callable[..., Any]
    limit: float
    prepare: Callable[..., Arguments] | None = None


@dataclass(frozen=True)
class Case:
    """One operation on inputs of one shape.

    Attributes:
        kernel: name of the operation.
        shape: of its inputs, for people.
        draw: makes arguments, other random ones at each call.
        reference: arguments -> the right result.
        rows: who computes it, ours first.
        transferred: bytes that have to be read and written, by whoever computes it.
        operations: multiplications and additions, where these are what it costs.
    """

    kernel: str
    shape: str
    draw: Callable[[], Arguments]
    reference: Callable[..., Any]
    rows: tuple[Row, ...]
    transferred: int
    operations: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kernel}, {self.shape}"


def leamfast_row(call: Callable[..., Any], limit: float = EXACT) -> Row:
    """Ours."""
    return Row("leamfast", call, limit)


def plain_row(call: Callable[..., Any], limit: float = EXACT) -> Row:
    """What a user would write."""
    return Row("plain PyTorch", call, limit)


def size_of(values: object) -> int:
    """Bytes of all tensors in arguments or results."""
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, Mapping):
        return sum(size_of(value) for value in values.values())
    return sum(size_of(value) for value in values) if isinstance(values, tuple | list) else 0
