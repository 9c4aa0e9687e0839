"""A face-recognition model: a network together with what it expects of its input."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from leamfast.models.embedding import as_embedding
from leamfast.models.layers import Layer, list_layers
from leamfast.models.preprocessing import Preprocessing

__all__ = ["FaceModel"]


@dataclass(frozen=True)
class FaceModel:
    """A network, its preprocessing, and where its weights came from.

    Attributes:
        name: the name under which results are stored.
        architecture: the network's name.
        network: images (N, 3, size, size) -> embeddings (N, D), as `as_embedding` finds them in whatever it
            returns; in evaluation mode.
        preprocessing: what it expects of its input.
        weights: hex SHA-256 of the weights file, or how the weights were drawn.
    """

    name: str
    architecture: str
    network: nn.Module
    preprocessing: Preprocessing
    weights: str

    @cached_property
    def device(self) -> torch.device:
        """Where the network's parameters lie."""
        parameter = next(self.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every module call of a forward pass, in the order in which they finish."""
        size = self.preprocessing.size
        parameter = next(self.network.parameters(), torch.empty(0))
        return list_layers(self.network, parameter.new_zeros(1, 3, size, size))

    def taps(self) -> tuple[Layer, ...]:
        """The layers whose output is a grid of cells, of which maps can be made."""
        return tuple(layer for layer in self.layers if layer.spatial)

    def preprocess(self, images: np.ndarray | Tensor) -> Tensor:
        """RGB crops, uint8 (N, size, size, 3) -> network input, float32 (N, 3, size, size), on the device."""
        return self.preprocessing(images, self.device)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Preprocessed images (N, 3, size, size) -> embeddings (N, D), not normalised.

        Float32, or float64 where the network computes in it.
        """
        images = images.to(next(self.network.parameters(), images).dtype)
        embeddings = as_embedding(self.network(images), self.name)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float()
