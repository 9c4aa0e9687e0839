"""Models with drawn weights that tell faces apart a little, where nobody's trained ones are at hand.

A deep network whose normalisations know nothing of what reaches them gives all images the same embedding, and
maps of it are zero: here they have the statistics of synthetic faces.
"""

from pathlib import Path

import torch
from torch import nn

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.models.zoo import ZOO, build

__all__ = ["DRAWN", "with_weights"]

DRAWN = "=drawn"
"""What a SPEC ends with whose weights are to be drawn."""

FACES, SEED = 16, 0


def with_weights(spec: str, folder: Path) -> str:
    """The SPEC itself, or `NAME=FILE` for `NAME=drawn`, with weights that are written into the folder."""
    name = spec.removesuffix(DRAWN)
    if name == spec:
        return spec
    named = ZOO[name]
    network = build(named, seed=SEED)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all batches
            module.reset_running_stats()
    generator = FaceGenerator(SEED, size=named.preprocessing.size)
    faces = torch.stack([torch.from_numpy(generator.render(person, 0).image) for person in range(FACES)])
    with torch.no_grad():
        network.train()(named.preprocessing(faces))
    path = folder / f"{name}.pt"
    torch.save(network.state_dict(), path)
    return f"{name}={path}"
