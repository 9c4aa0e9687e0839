"""Compiled programs: files that hold a model's forward and backward pass, ready to run.

`leamfast compile` writes them. A program carries in `leamfast.json` what it is; that much is read without
running any of it. The rest is code, native code even, and is loaded only where the user trusts it.
"""

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.models.devices import check_device, processor_name
from leamfast.models.face_model import FaceModel
from leamfast.models.jit import load_script
from leamfast.models.layers import Layer
from leamfast.models.preprocessing import Preprocessing
from leamfast.models.weights import file_sha256
from leamfast.models.zips import check_members

__all__ = ["CompiledModel", "Passes", "ProgramInfo", "is_program", "load_passes", "load_program", "read_info"]

SCHEMA = "leamfast-program/1"
ABOUT = "leamfast.json"
Graph = Callable[..., Any]


@dataclass(frozen=True)
class ProgramInfo:
    """What a compiled program is.

    Attributes:
        backend: `torchscript` or `inductor`.
        model: name of the model; with `architecture`, `weights` and `preprocessing` as `FaceModel` has them.
        dimensions: D of its embeddings.
        taps: where it makes maps.
        target, activation, registration, precision: how it makes them.
        centres: tap -> where its cells lie, for the registration; None for a plain resize.
        warnings: tap -> what is known against its maps.
        device: `cpu` or `cuda`, on which it runs.
        processor: instruction set or GPU that it was made for; empty where any will do.
        torch: version that it was made with.
    """

    backend: str
    model: str
    architecture: str
    weights: str
    preprocessing: Preprocessing
    dimensions: int
    taps: tuple[Layer, ...]
    target: str
    activation: str
    registration: str
    precision: str
    centres: dict[str, Any]
    warnings: dict[str, tuple[str, ...]]
    device: str
    processor: str
    torch: str = field(default_factory=lambda: torch.__version__)

    def to_json(self) -> str:
        """The text of `leamfast.json`."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "ProgramInfo":
        """From the text of `leamfast.json`; raises ValueError, KeyError or TypeError where it is not one."""
        values = json.loads(text)
        if values.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        taps = tuple(Layer(**tap) for tap in values.pop("taps"))
        centres = {tap: _pairs(place) for tap, place in values.pop("centres").items()}
        warnings = {tap: tuple(texts) for tap, texts in values.pop("warnings").items()}
        preprocessing = Preprocessing.from_mapping(values.pop("preprocessing"))
        return cls(taps=taps, centres=centres, warnings=warnings, preprocessing=preprocessing, **values)


@dataclass(frozen=True)
class Passes:
    """The two passes of a program, on tensors laid out channels last.

    Attributes:
        forward: images (B, 3, H, W) -> (embeddings (B, D), *saved).
        backward: (*saved, cotangents (B, D)) -> maps, one (B, h, w) a tap.
    """

    forward: Graph
    backward: Graph


class _Embedding(nn.Module):
    """The forward pass of a program as a network that gives embeddings."""

    def __init__(self, passes: Passes) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, images: Tensor) -> Tensor:
        twice = images if len(images) > 1 else images.expand(2, -1, -1, -1)
        return self.passes.forward(twice.contiguous(memory_format=torch.channels_last))[0][: len(images)]


@dataclass(frozen=True)
class CompiledModel(FaceModel):
    """A model that came as a compiled program: its layers are its taps.

    Attributes:
        info: what the program is.
        passes: what it computes with.
        file: hex SHA-256 of the file.
    """

    info: ProgramInfo = field(repr=False)
    passes: Passes = field(repr=False)
    file: str

    @property
    def device(self) -> torch.device:
        """Where the program computes."""
        return torch.device(self.info.device)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The taps that it was compiled for."""
        return self.info.taps


def is_program(path: Path) -> bool:
    """Whether a file says of itself that it is a compiled program."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _about(archive) is not None
    except Exception:  # damaged files make the reader raise nearly anything
        return False


def read_info(path: Path) -> ProgramInfo:
    """What a compiled program says of itself; nothing of it runs.

    Raises:
        RequestError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path.stat().st_size, "it")
            name = _about(archive)
            if name is None:
                raise ValueError(f"it holds no {ABOUT}")
            return ProgramInfo.from_json(archive.read(name).decode())
    except Exception as exc:  # what a file says of itself may be anything
        raise RequestError(f"program {path} is damaged: {str(exc) or type(exc).__name__}") from exc


def load_program(path: Path, device: str | torch.device | None = None) -> CompiledModel:
    """The model of a compiled program, which is code: only for files that the user trusts.

    Raises:
        RequestError: it was made for another device, instruction set or torch, or is damaged.
    """
    info = read_info(path)
    here = str(device or "cpu")
    made: dict[str, tuple[str, Callable[[], str]]] = {
        "device": (info.device, lambda: torch.device(here).type),
        "processor": (info.processor, lambda: processor_name(here) if info.processor else ""),
        "torch": (info.torch, lambda: torch.__version__),
    }
    check_device(here)
    for what, (theirs, find) in made.items():
        if theirs != (ours := find()):
            raise RequestError(
                f"program {path} was compiled for {what} {theirs}, but this is {ours}: "
                "compile it again here with `leamfast compile`"
            )
    passes = load_passes(path, info.backend, here)
    return CompiledModel(
        info.model,
        info.architecture,
        _Embedding(passes).eval(),
        info.preprocessing,
        info.weights,
        info,
        passes,
        file_sha256(path),
    )


def load_passes(path: Path, backend: str, device: str | torch.device = "cpu") -> Passes:
    """The passes in a file, for a device.

    Raises:
        RequestError: they cannot be loaded.
    """
    try:
        if backend == "torchscript":
            import leamfast_kernels  # noqa: F401  the operators that the archive calls

            passes = load_script(path)
        else:
            from torch.export.pt2_archive._package import load_pt2

            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # of machines without GPU
            place = torch.device(device)
            passes = load_pt2(
                str(path),
                run_single_threaded=place.type == "cuda",  # a lock would break the capture of a graph
                device_index=-1 if place.index is None else place.index,
            ).aoti_runners
        return Passes(passes["forward_pass"], passes["backward_pass"])
    except Exception as exc:  # damaged files make the loaders raise nearly anything
        text = (str(exc) or type(exc).__name__).splitlines()[0]
        raise RequestError(f"program {path} cannot be loaded: {text}") from exc


def _about(archive: zipfile.ZipFile) -> str | None:
    names = [name for name in archive.namelist() if name.endswith(f"/extra/{ABOUT}")]
    return names[0] if len(names) == 1 else None


def _pairs(place: Any) -> Any:
    return None if place is None else tuple((float(offset), float(step)) for offset, step in place)
