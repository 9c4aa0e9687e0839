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

__all__ = ["BatchRequest", "check_request"]


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
    choices = {
        "align": (request.align, ALIGNMENTS),
        "faces": (request.faces, FACES),
        "target": (request.target, TARGETS),
        "activation": (request.activation, ACTIVATIONS),
        "registration": (request.registration, REGISTRATIONS),
        "references": (request.references, POLICIES),
        "precision": (request.precision, PRECISIONS),
        "backend": (request.backend, BACKENDS),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise RequestError(f"--{name} must be one of {', '.join(allowed)}, got {value!r}")
    least: dict[str, int | None] = {
        "max-references": request.max_references,
        "batch-size": request.batch_size,
    }
    least |= {"shard-images": request.shard_images, "split-images": request.split_images}
    least |= {"threads": request.threads}
    least |= {"max-attempts": request.max_attempts}
    for name, number in least.items():
        if number is not None and number < 1:
            raise RequestError(f"--{name} must be at least 1, got {number}")
    for name, number in {"workers": request.workers, "gpus": request.gpus, "seed": request.seed}.items():
        if number < 0:
            raise RequestError(f"--{name} must not be negative, got {number}")
    if request.shard_timeout is not None and not request.shard_timeout > 0:
        raise RequestError(f"--shard-timeout must be above 0 seconds, got {request.shard_timeout}")
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
