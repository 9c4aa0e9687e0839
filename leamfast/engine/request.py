"""What a user asks of `leamfast batch`, and what cannot be asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leamfast.datasets.formats import AUTO
from leamfast.engine.cluster.connection import check_address
from leamfast.engine.finding import ALIGNMENTS
from leamfast.engine.run import ATTEMPTS
from leamfast.errors import RequestError
from leamfast.faces.parse import parse_parser
from leamfast.faces.selection import FACES
from leamfast.leam.backends import BACKENDS
from leamfast.leam.precision import PRECISIONS
from leamfast.leam.program import ACTIVATIONS, TARGETS
from leamfast.leam.references import POLICIES
from leamfast.leam.registration import REGISTRATIONS
from leamfast.models.devices import check_device

__all__ = ["BatchRequest", "check_request", "wrong_value"]


@dataclass(frozen=True)
class BatchRequest:
    """What a user asks of `leamfast batch`; the command's options have the same names and meanings."""

    data: Path
    out: Path
    model: tuple[str, ...]
    format: str = AUTO
    limit_identities: int | None = None
    images_per_identity: int | None = None
    min_images: int = 1
    layers: tuple[str, ...] = ("auto",)
    align: str = "arcface"
    detector: str | None = None
    faces: str = "one"
    parser: str = "labels"
    target: str = "loss"
    activation: str = "signed"
    registration: str = "resize"
    references: str = "mean"
    max_references: int = 8
    precision: str = "fp32"
    backend: str = "auto"
    batch_size: int = 16
    shard_images: int | None = None
    split_images: int | None = None
    workers: int = 0
    gpus: int = 0
    address: str | None = None
    max_attempts: int = ATTEMPTS
    shard_timeout: float | None = None
    threads: int | None = None
    device: str = "cpu"
    seed: int = 0
    preprocessing: dict[str, dict[str, Any]] | None = None  # by model name; "*" for every model without one
    trust_code: bool = False
    resume: bool = False

    @property
    def on_ray(self) -> bool:
        """Whether actors of Ray compute; worker processes of our own or this one do otherwise."""
        return self.gpus > 0 or self.address is not None


def check_request(request: BatchRequest) -> None:
    """Raise a RequestError where an option, or two together, make no sense; no file is opened."""
    if (wrong := wrong_value(request)) is not None:
        raise RequestError(f"--{wrong[0].replace('_', '-')} {wrong[1]}")
    _check_place(request)
    if request.align != "none" and request.detector is None:
        raise RequestError(
            f"--align {request.align} needs a detector: give --detector retinaface=FILE or dlib, "
            "or --align none for crops that are aligned already"
        )
    if request.align == "paper" and request.detector is not None and not request.detector.startswith("dlib"):
        raise RequestError(
            f"--align paper needs the 68 landmarks of --detector dlib, got --detector {request.detector}"
        )
    parser = parse_parser(request.parser)
    if parser.of_faces and request.align == "none":
        raise RequestError(
            f"--parser {parser.name} needs photos in which faces are found, got --align none: ask for "
            "--align arcface, or give masks of the crops with --parser masks=DIR"
        )
    if parser.name == "polygons" and request.detector is not None and not request.detector.startswith("dlib"):
        raise RequestError(
            f"--parser polygons needs the 68 landmarks of --detector dlib, got --detector {request.detector}"
        )


def wrong_value(request: BatchRequest) -> tuple[str, str] | None:
    """The first field that has a value it cannot have, and the rule with that value; None where all are fine.

    Each field by itself: nothing is said of two together, of files, or of what this machine has.
    """
    choices = {
        "align": ALIGNMENTS,
        "faces": FACES,
        "target": TARGETS,
        "activation": ACTIVATIONS,
        "registration": REGISTRATIONS,
        "references": POLICIES,
        "precision": PRECISIONS,
        "backend": BACKENDS,
    }
    for name, allowed in choices.items():
        if (value := getattr(request, name)) not in allowed:
            return name, f"must be one of {', '.join(allowed)}, got {value!r}"
    for name in ("max_references", "batch_size", "shard_images", "split_images", "threads", "max_attempts"):
        if (number := getattr(request, name)) is not None and number < 1:
            return name, f"must be at least 1, got {number}"
    for name in ("workers", "gpus", "seed"):
        if (number := getattr(request, name)) < 0:
            return name, f"must not be negative, got {number}"
    if request.shard_timeout is not None and not request.shard_timeout > 0:
        return "shard_timeout", f"must be above 0 seconds, got {request.shard_timeout}"
    return None


def _check_place(request: BatchRequest) -> None:
    """Raise a RequestError where what is said of machines makes no sense."""
    check_address(request.address)
    if request.gpus and request.device != "cpu":
        raise RequestError(
            f"--device {request.device} is for a run in this process: with --gpus every actor takes the GPU "
            "that Ray gives it"
        )
    if request.address is not None and not (request.gpus or request.workers):
        raise RequestError(
            f"--address {request.address} needs --gpus N or --workers N: how many actors compute there"
        )
    if not request.on_ray:
        check_device(request.device)
    elif request.device != "cpu":
        raise RequestError(f"--device {request.device} is not for actors of Ray: ask for --gpus N")
