"""Which parts of a face does a recognition model use to recognise one person."""

import os

# Threads that wait by spinning starve each other wherever anything else runs on the machine: with one more
# busy process, face detection on two threads took 2.4 s an image so, and 0.09 s with threads that soon sleep.
# OpenMP reads this once, when torch is first imported; what the user has set stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from leamfast.errors import RequestError  # noqa: E402
from leamfast.leam import LEAM, LeamResult  # noqa: E402
from leamfast.models import FaceModel, load_model  # noqa: E402
from leamfast.store.results import Results, open_results  # noqa: E402

__all__ = ["LEAM", "FaceModel", "LeamResult", "RequestError", "Results", "load_model", "open_results"]
__version__ = "0.1.0"
