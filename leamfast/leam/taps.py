"""Which layers of a model are looked at."""

from collections.abc import Sequence
from difflib import get_close_matches

from leamfast.errors import RequestError
from leamfast.models.compiled import CompiledModel
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = ["AUTO_TAPS", "select_taps"]

AUTO_TAPS = 9  # the paper analyses nine layers a model

# What timm, torchvision and transformers call the normalisation before a block's attention. What comes after
# the last attention of a network with a class token gets no gradient at its patches.
BEFORE_ATTENTION = ("norm1", "ln_1", "layernorm_before")
SHORTCUTS = ("downsample", "shortcut")


def select_taps(model: FaceModel, layers: str | Sequence[str]) -> tuple[Layer, ...]:
    """The taps that a request names, in the order in which a forward pass reaches them.

    Args:
        model: the model.
        layers: `auto` (nine of `all`, spread evenly over the depth, from the stem to the last, shortcuts left
            out), `all` (every spatial convolution, and the LayerNorm before every attention), or names, as a
            sequence or separated by commas. A module that one pass runs several times gives a tap for each
            call; `module@2` names the second.

    Raises:
        RequestError: a name that does not exist (near names are given), or whose output is no grid.
    """
    if layers in ("auto", "all") and isinstance(model, CompiledModel):
        return model.layers  # its program makes the maps of these
    if layers in ("auto", "all"):
        candidates = [tap for tap in model.taps() if _candidate(tap)]
        if not candidates:
            raise RequestError(
                f"layers {layers!r} means spatial convolutions, of which {model.name} has none: "
                "name layers of it"
            )
        return tuple(candidates) if layers == "all" else _spread(candidates)
    names = layers.split(",") if isinstance(layers, str) else list(layers)
    names = [name.strip() for name in names]
    if not names or len(set(names)) != len(names):
        raise RequestError(f"layers must be one or more different names, got {','.join(names)!r}")
    for name in names:
        _check(name, model)
    return tuple(tap for tap in model.taps() if tap.name in names or tap.module in names)


def _candidate(tap: Layer) -> bool:
    norm = tap.kind == "LayerNorm" and tap.module.rpartition(".")[2] in BEFORE_ATTENTION
    return tap.kind == "Conv2d" or norm


def _spread(candidates: list[Layer]) -> tuple[Layer, ...]:
    path = [tap for tap in candidates if not any(word in tap.name for word in SHORTCUTS)] or candidates
    if len(path) <= AUTO_TAPS:
        return tuple(path)
    steps = AUTO_TAPS - 1
    return tuple(path[(i * (len(path) - 1) + steps // 2) // steps] for i in range(AUTO_TAPS))


def _check(name: str, model: FaceModel) -> None:
    """Raise unless a name means a layer, or a module, that has a grid."""
    meant = [layer for layer in model.layers if name in (layer.name, layer.module)]
    if not meant:
        near = get_close_matches(name, [layer.name for layer in model.layers], n=5, cutoff=0.5)
        hint = f"near names: {', '.join(near)}" if near else "see `leamfast layers`"
        raise RequestError(f"layer {name!r} does not exist in {model.name}; {hint}")
    if not any(layer.spatial for layer in meant):
        raise RequestError(
            f"layer {name!r} of {model.name} has no spatial extent: "
            "its output is no grid of more than one cell"
        )
