"""A case: one model, its taps, and the images and references that every row is given."""

import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.leam.taps import select_taps
from leamfast.models import FaceModel

__all__ = ["Case", "Cell", "make_case", "spread"]


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        model: SPEC of the model.
        taps: how many, out of the nine that `auto` selects.
        batch: images in a call.
        references: of each image.
        groups: of the rows that are measured here.
        rounds: timed calls of each row.
    """

    model: str
    taps: int
    batch: int
    references: int
    groups: tuple[str, ...]
    rounds: int

    @property
    def name(self) -> str:
        """For people."""
        model = self.model.partition("=")[0]
        many = "reference" if self.references == 1 else "references"
        taps = "layer" if self.taps == 1 else "layers"
        return f"{model}, {self.taps} {taps}, batch {self.batch}, {self.references} {many}"


@dataclass(frozen=True, eq=False)
class Case:
    """What every row of a cell is given.

    Attributes:
        model: with frozen parameters, as `load_model` makes it.
        taps: names of the tapped layers, in the order of execution.
        images: preprocessed, (N, 3, S, S), contiguous.
        references: (N, D), or (N, R, D) for R references an image.
    """

    model: FaceModel
    taps: tuple[str, ...]
    images: Tensor
    references: Tensor

    @property
    def device(self) -> str:
        """Where everything lies."""
        return str(self.images.device)

    @cached_property
    def trainable(self) -> nn.Module:
        """The network as a user finds it who has not frozen its parameters."""
        return copy.deepcopy(self.model.network).requires_grad_(True)

    def frozen(self, layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
        """A copy of the network for whoever leaves hooks in it, or asks for another memory layout."""
        return copy.deepcopy(self.model.network).requires_grad_(False).to(memory_format=layout)


def make_case(model: FaceModel, cell: Cell) -> Case:
    """Synthetic faces, and references drawn at random: what they are costs nothing.

    Args:
        model: of the cell.
        cell: how many of what.
    """
    taps = [tap.name for tap in select_taps(model, "auto")]
    generator = FaceGenerator(size=model.preprocessing.size)
    faces = np.stack([generator.render(person, 0).image for person in range(cell.batch)])
    images = model.preprocess(faces).contiguous()
    dimension = model.embed(images[:1]).shape[1]
    shape = (cell.batch, cell.references, dimension)
    references = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(images)
    return Case(
        model,
        tuple(taps[i] for i in spread(len(taps), cell.taps)),
        images,
        references[:, 0] if cell.references == 1 else references,
    )


def spread(available: int, wanted: int) -> list[int]:
    """Which of so many are taken: the middle one, or evenly from the first to the last.

    >>> spread(9, 1), spread(9, 5)
    ([4], [0, 2, 4, 6, 8])
    """
    if min(wanted, available) == 1:
        return [available // 2]
    steps = min(wanted, available) - 1
    return [(i * (available - 1) + steps // 2) // steps for i in range(steps + 1)]
