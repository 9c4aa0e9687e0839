"""Architectures, preprocessing, the zoo of named models, and loading of weights."""

from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model
from leamfast.models.preprocessing import Preprocessing

__all__ = ["FaceModel", "Preprocessing", "load_model"]
