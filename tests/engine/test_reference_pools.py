"""References from a pool: the mean of the others, and the draws."""

import numpy as np
import torch

from leamfast.engine.reference_pools import ReferencePool
from leamfast.leam.references import draw_references

POSITIONS = [2, 3, 5, 8, 13, 21]
PEOPLE = np.array([0, 0, 4, 4, 4, 7])


def pool() -> tuple[torch.Tensor, ReferencePool]:
    units = torch.nn.functional.normalize(torch.randn(6, 4))
    return units, ReferencePool(units, POSITIONS, PEOPLE)


def test_the_mean_leaves_the_image_out():
    units, found = pool()
    means = found.means(4, [13, 5])
    torch.testing.assert_close(means, torch.stack([units[[2, 3]].mean(0), units[[3, 4]].mean(0)]))
    assert found.means(7, [21]).isnan().all()  # no other


def test_draws_are_padded():
    units, found = pool()
    references, drawn = found.drawn([0, 4, 4, 7], [3, 8, 13, 21], 2, 1)
    wanted = [draw_references([5, 8, 13], image, 2, 1) for image in (8, 13)]
    assert drawn.tolist() == [[2, -1], *wanted, [-1, -1]]
    torch.testing.assert_close(references[0, 0], units[0])
    torch.testing.assert_close(references[1], units[[POSITIONS.index(position) for position in wanted[0]]])
    assert references[0, 1].isnan().all()
    assert references[3].isnan().all()
