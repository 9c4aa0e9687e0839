"""The images among which those of an identity find their references, wherever they are computed."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from leamfast.leam.references import draw_references
from leamfast.models.devices import upload
from leamfast.store.references import References

__all__ = ["ReferencePool"]


class ReferencePool:
    """Usable images of identities, with their unit embeddings.

    Args:
        units: unit embeddings, (n, D); zeros where there is none.
        positions: of the images in the manifest, (n,); ascending.
        identities: number of each image's identity, (n,); equal ones adjacent.
    """

    def __init__(self, units: Tensor, positions: Sequence[int] | np.ndarray, identities: np.ndarray) -> None:
        self.units = units
        self.positions = np.asarray(positions, np.int64)
        numbers, starts = np.unique(identities, return_index=True)
        ends = np.append(starts[1:], len(self.positions))
        self._spans = {int(i): slice(int(a), int(b)) for i, a, b in zip(numbers, starts, ends, strict=True)}
        self._sums: dict[int, Tensor] = {}

    @classmethod
    def of_references(cls, references: References, model: str) -> Self:
        """The images of a split identity, as number 0, as one model sees them."""
        units = torch.from_numpy(references.units[model])
        return cls(units, references.positions, np.zeros(len(units), np.int64))

    def of(self, identity: int) -> np.ndarray:
        """Positions of an identity's images, ascending."""
        return self.positions[self._spans[identity]]

    def means(self, identity: int, positions: Sequence[int]) -> Tensor:
        """Mean of the unit embeddings of an identity's other images, (B, D); NaN where there is no other.

        Args:
            identity: its number.
            positions: of B of its images.
        """
        span = self._spans[identity]
        if identity not in self._sums:
            # In float64: of a million summands, what is left after taking one off must still be right.
            self._sums[identity] = self.units[span].sum(dim=0, dtype=torch.float64)
        own = self.units[self._numbers(identity, positions)].double()
        return ((self._sums[identity] - own) / (span.stop - span.start - 1)).float()

    def drawn(
        self, identities: Sequence[int], positions: Sequence[int], most: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """References of B images, drawn as `draw_references` does.

        Args:
            identities: of the images.
            positions: of the images.
            most, seed: of the draws.

        Returns:
            unit embeddings, (B, R, D), NaN as padding; and positions of the references, (B, R), padded with
            -1.
        """
        pairs = zip(identities, positions, strict=True)
        found = [draw_references(self.of(identity), image, most, seed) for identity, image in pairs]
        width = max(1, max(map(len, found)))
        drawn = torch.tensor([own + [-1] * (width - len(own)) for own in found])
        numbers = torch.from_numpy(np.searchsorted(self.positions, drawn.numpy()))
        references = self.units[upload(numbers, self.units.device)]
        padding = upload((drawn < 0)[..., None], self.units.device)
        return references.masked_fill(padding, torch.nan), drawn

    def _numbers(self, identity: int, positions: Sequence[int]) -> Tensor:
        span = self._spans[identity]
        numbers = torch.from_numpy(span.start + np.searchsorted(self.positions[span], positions))
        return upload(numbers, self.units.device)
