"""Which layers of a model are looked at."""

from collections.abc import Sequence
from difflib import get_close_matches

from leamfast.errors import RequestError
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = ["AUTO_TAPS", "select_taps"]

AUTO_TAPS = 9  # the paper analyses nine layers a model


def select_taps(model: FaceModel, layers: str | Sequence[str]) -> tuple[Layer, ...]:
    """The taps that a request names, in the order in which a forward pass reaches them.

    Args:
        model: the model.
        layers: `auto` (nine convolutions spread evenly over the depth, from the stem to the last, shortcuts
            left out), `all` (every spatial convolution), or names, as a sequence or separated by commas.

    Raises:
        RequestError: a name that does not exist (near names are given), or whose output is no grid.
    """
    if layers in ("auto", "all"):
        convolutions = [tap for tap in model.taps() if tap.kind == "Conv2d"]
        if not convolutions:
            raise RequestError(
                f"layers {layers!r} means spatial convolutions, of which {model.name} has none: "
                "name layers of it"
            )
        return tuple(convolutions) if layers == "all" else _spread(convolutions)
    names = layers.split(",") if isinstance(layers, str) else list(layers)
    names = [name.strip() for name in names]
    if not names or len(set(names)) != len(names):
        raise RequestError(f"layers must be one or more different names, got {','.join(names)!r}")
    known = {layer.name: layer for layer in model.layers}
    for name in names:
        _check(name, known, model.name)
    return tuple(layer for layer in model.layers if layer.name in names)


def _spread(convolutions: list[Layer]) -> tuple[Layer, ...]:
    path = [tap for tap in convolutions if "downsample" not in tap.name] or convolutions
    if len(path) <= AUTO_TAPS:
        return tuple(path)
    steps = AUTO_TAPS - 1
    return tuple(path[(i * (len(path) - 1) + steps // 2) // steps] for i in range(AUTO_TAPS))


def _check(name: str, known: dict[str, Layer], model: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f"near names: {', '.join(near)}" if near else "see `leamfast layers`"
        raise RequestError(f"layer {name!r} does not exist in {model}; {hint}")
    layer = known[name]
    if layer.calls > 1:
        raise RequestError(
            f"layer {name!r} of {model} runs {layer.calls} times in one pass: tap what uses it"
        )
    if not layer.spatial:
        raise RequestError(
            f"layer {name!r} of {model} has no spatial extent: its output is no grid of more than one cell"
        )
