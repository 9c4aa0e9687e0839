"""Targets, taps and programs: images and references -> embeddings and maps."""

from leamfast.leam.explainer import LEAM, LeamResult
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.program import TARGETS, EagerProgram, ProgramOutput
from leamfast.leam.references import POLICIES, draw_references, leave_one_out
from leamfast.leam.taps import select_taps

__all__ = [
    "LEAM",
    "POLICIES",
    "TARGETS",
    "EagerProgram",
    "LeamResult",
    "ProgramOutput",
    "draw_references",
    "fuse",
    "leave_one_out",
    "normalise",
    "select_taps",
]
