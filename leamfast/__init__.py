"""Which parts of a face does a recognition model use to recognise one person."""

from leamfast.errors import RequestError
from leamfast.leam import LEAM, LeamResult
from leamfast.models import FaceModel, load_model
from leamfast.store.results import Results, open_results

__all__ = ["LEAM", "FaceModel", "LeamResult", "RequestError", "Results", "load_model", "open_results"]
__version__ = "0.1.0"
