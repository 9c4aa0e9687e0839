"""Synthetic faces: procedural people with exact region masks, for tests, demos and planted ground truth."""

from leamfast.datasets.synthetic.faces import FaceGenerator, SyntheticFace
from leamfast.datasets.synthetic.planting import PLANTS
from leamfast.datasets.synthetic.writing import write_dataset

__all__ = ["PLANTS", "FaceGenerator", "SyntheticFace", "write_dataset"]
