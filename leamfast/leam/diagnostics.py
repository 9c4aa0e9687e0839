"""Taps whose maps are known to mislead, from what they are and how maps are made of them.

The rules come from planted truth (`leamfast bench truth`, docs/truth.md), where the right answer is known.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.leam.program import Program
from leamfast.leam.registration import Centres, cell_centres, plain_centres
from leamfast.models.compiled import CompiledModel
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer, at_layers

__all__ = ["program_warnings", "tap_warnings"]

FACE = 112  # pixels of an aligned crop, to which the lengths below refer
DISPLACED = 3.0  # pixels off from where cells look; half the width of a synthetic eye
COARSE = 100.0  # pixels a cell: about an eye


def program_warnings(program: Program, activation: str, registration: str) -> dict[str, tuple[str, ...]]:
    """`tap_warnings` of a program's taps; a compiled program brings them."""
    if isinstance(program.model, CompiledModel):
        return {tap.name: program.model.info.warnings[tap.name] for tap in program.taps}
    return tap_warnings(program.model, program.taps, activation=activation, registration=registration)


def tap_warnings(
    model: FaceModel, taps: Sequence[Layer], *, activation: str, registration: str
) -> dict[str, tuple[str, ...]]:
    """Why maps of a tap may point to the wrong place.

    Args:
        model: the model.
        taps: its taps.
        activation: `signed` or `positive`.
        registration: `resize` or `receptive`.

    Returns:
        Tap -> sentences, empty where nothing is known against it.
    """
    size = model.preprocessing.size
    sums = _sums(model, taps) if activation == "signed" else frozenset()
    true = _centres(model, taps) if registration == "resize" else {}
    found = {}
    for tap in taps:
        texts = []
        rows, columns = size / tap.height, size / tap.width
        if rows * columns * (FACE / size) ** 2 >= COARSE:
            texts.append(
                f"a cell covers {rows:.0f}x{columns:.0f} pixels, more than an eye: maps cannot tell parts of "
                "the face from what is beside them"
            )
        if tap.name in true and (off := _displacement(tap, true[tap.name], size)) * FACE / size > DISPLACED:
            texts.append(
                f"a plain resize puts its cells up to {off:.1f} pixels from where they look: "
                "registration receptive moves them to the centres of their fields"
            )
        if tap.name in sums:
            texts.append(
                "it is the sum behind a shortcut, whose negative part cancels, with signed activations, what "
                "the gradient finds: use activation positive, or a tap inside the block"
            )
        found[tap.name] = tuple(texts)
    return found


def _displacement(tap: Layer, true: Centres, size: int) -> float:
    """Pixels between where a plain resize puts the cells and where they look, at the worst cell and axis."""
    worst = 0.0
    for cells, (offset, step), (plain, width) in zip(
        (tap.height, tap.width), true, plain_centres(tap, size), strict=True
    ):
        worst = max(worst, abs(offset - plain), abs(offset - plain + (cells - 1) * (step - width)))
    return worst


def _centres(model: FaceModel, taps: Sequence[Layer]) -> dict[str, Centres]:
    """Where the cells of the taps look; a tap whose registration is not known is left out."""
    try:
        return cell_centres(model, taps)
    except RequestError:
        if len(taps) == 1:
            return {}
        return {name: place for tap in taps for name, place in _centres(model, [tap]).items()}


def _sums(model: FaceModel, taps: Sequence[Layer]) -> frozenset[str]:
    """Taps whose output is a sum, as behind the shortcut of a residual block."""
    size = model.preprocessing.size
    parameter = next(model.network.parameters(), torch.empty(0))
    image = parameter.new_zeros(1, 3, size, size).requires_grad_()
    sums = set()

    def look(tap: Layer, output: Tensor) -> None:
        if output.grad_fn is not None and output.grad_fn.name().startswith("AddBackward"):
            sums.add(tap.name)

    with torch.enable_grad(), at_layers(model.network, taps, look):
        model.network(image)
    return frozenset(sums)
