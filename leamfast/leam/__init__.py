"""Targets, taps and programs: images and references -> embeddings and maps."""

from leamfast.leam.explainer import LEAM, LeamResult
from leamfast.leam.fused import fuse, normalise
from leamfast.leam.presets import PRESETS, Preset
from leamfast.leam.program import ACTIVATIONS, TARGETS, Program, ProgramOutput
from leamfast.leam.references import POLICIES, draw_references, leave_one_out
from leamfast.leam.registration import REGISTRATIONS, cell_centres
from leamfast.leam.taps import select_taps

__all__ = [
    "ACTIVATIONS",
    "LEAM",
    "POLICIES",
    "PRESETS",
    "REGISTRATIONS",
    "TARGETS",
    "Program",
    "LeamResult",
    "Preset",
    "ProgramOutput",
    "cell_centres",
    "draw_references",
    "fuse",
    "leave_one_out",
    "normalise",
    "select_taps",
]
