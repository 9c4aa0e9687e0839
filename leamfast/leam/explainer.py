"""LEAM for a batch of images and their references."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.leam.backends import BACKENDS, build_program
from leamfast.leam.references import SAME
from leamfast.leam.registration import Centres
from leamfast.leam.taps import select_taps
from leamfast.models.compiled import CompiledModel
from leamfast.models.face_model import FaceModel

__all__ = ["LEAM", "LeamResult"]


@dataclass(frozen=True)
class LeamResult:
    """Embeddings and maps.

    Attributes:
        embeddings: (N, D), float32, not normalised.
        maps: tap -> (N, h, w), or (N, R, h, w) for R references an image; raw, at the tap's own resolution.
        cosines: cos(f(x), r), (N,) or (N, R).
    """

    embeddings: Tensor
    maps: dict[str, Tensor]
    cosines: Tensor


class LEAM:
    """Maps of what makes an image resemble its references, for all taps at once.

    Args:
        model: from `leamfast.load_model`.
        layers: `auto`, `all`, or names of layers.
        target: `loss` (gradient of 1 - cos, as the paper states) or `similarity` (gradient of cos).
        backend: `eager`, `torchscript` or `inductor`; `auto` is the first, as compiling pays for thousands
            of images only, and for a compiled program its own.
        precision: `fp32`, `tf32` (on CUDA) or `bf16`.
        activation: `signed` (as the paper), or `positive` (ReLU of the activations).
        registration: `resize` (as the paper), or `receptive`: `centres` then says where the cells of a map
            really lie. The maps are the same; what is made of them at the input's size is not.

    Raises:
        RequestError: a layer, the target or the backend is not to be had.

    Reference:
        arXiv 2509.17457; LayerCAM, Jiang et al. 2021.
    """

    def __init__(
        self,
        model: FaceModel,
        layers: str | Sequence[str] = "auto",
        target: str = "loss",
        backend: str = "auto",
        activation: str = "signed",
        registration: str = "resize",
        precision: str = "fp32",
    ) -> None:
        if not isinstance(model, FaceModel):
            raise TypeError(f"model must come from leamfast.load_model, got {type(model).__name__}")
        if backend not in BACKENDS:
            raise RequestError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        self.program = build_program(
            model,
            select_taps(model, layers),
            target=target,
            activation=activation,
            registration=registration,
            backend="eager" if backend == "auto" and not isinstance(model, CompiledModel) else backend,
            precision=precision,
        )

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the taps, in the order in which a forward pass reaches them."""
        return tuple(tap.name for tap in self.program.taps)

    @property
    def centres(self) -> dict[str, Centres | None]:
        """Tap -> ((offset, step), (offset, step)) of its cells in input pixels; None for a plain resize.

        As `support`, `region_share` and `upsample` of `leamfast_kernels` take them.
        """
        return dict(self.program.centres)

    def __call__(self, images: Tensor, references: Tensor) -> LeamResult:
        """Maps of images against reference embeddings.

        Args:
            images: preprocessed, (N, 3, size, size); see `FaceModel.preprocess`.
            references: embeddings of other images of the same identities, (N, D), or (N, R, D) for one map
                a reference; NaN rows are padding and give NaN maps. Their length plays no part.

        Raises:
            RequestError: shapes that do not fit, or a reference that equals its image.
        """
        size = self.program.model.preprocessing.size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size) or not images.is_floating_point():
            raise RequestError(
                f"images must be preprocessed floats of shape (N, 3, {size}, {size}), "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        if bool(references.isinf().any()):
            raise RequestError("references must be finite, or NaN where there is none; got infinite values")
        output = self.program(images, references=references)
        norms = output.embeddings.norm(dim=1)
        if bool((broken := ~(norms.isfinite() & (norms > 0))).any()):
            i = int(broken.nonzero()[0])
            raise RequestError(
                f"images[{i}] has an embedding that is {'zero' if norms[i] == 0 else 'not finite'}, "
                "which has no direction to compare: leave it out"
            )
        equal = (output.cosines > 1 - SAME).flatten()
        if bool(equal.any()):
            i = int(torch.nonzero(equal)[0]) // max(1, equal.numel() // images.shape[0])
            raise RequestError(
                f"references[{i}] equals the embedding of images[{i}], where the gradient of 1 - cos "
                "is zero: give another image of the identity"
            )
        return LeamResult(output.embeddings, output.maps, output.cosines)
