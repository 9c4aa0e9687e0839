"""Who computes a program: autograd, a TorchScript archive, or native code by Inductor.

A backend other than autograd runs a recording of the program, compiled into a file that is kept for the next
time, and is checked against autograd whenever it starts.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from leamfast.errors import RequestError
from leamfast.leam import compiling
from leamfast.leam.checking import check_passes
from leamfast.leam.compiling import has_compiler, write_program
from leamfast.leam.diagnostics import tap_warnings
from leamfast.leam.eager import EagerPasses
from leamfast.leam.folding import fold
from leamfast.leam.precision import cast_graph, cast_model, check_precision
from leamfast.leam.program import Program
from leamfast.leam.recorded import RecordedPasses
from leamfast.leam.recording import Recording, record, split
from leamfast.models.compiled import CompiledModel, Passes, ProgramInfo, load_passes
from leamfast.models.devices import processor_name
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer
from leamfast.models.weights import tensors_sha256

__all__ = ["BACKENDS", "available", "build_program", "choose_backend", "compile_program"]

BACKENDS = ("auto", "eager", "torchscript", "inductor")
KEPT = 20  # compiled programs in the user's cache

RATES = {"cpu": 80e9, "cuda": 20e12}  # FLOP/s of eager float32, of a CPU's thread or a GPU
SETUP = {"eager": (0.0, 0.0), "torchscript": (5.0, 0.2), "inductor": (10.0, 1.5)}
SHARES = {"eager": 1.0, "torchscript": 0.75, "inductor": 0.55}
"""What a backend costs before its first image, in seconds at all and a convolution, and its time an image as
a share of eager's: measured once, so that the choice follows from the work and not from a stopwatch."""


def available(device: str | torch.device) -> dict[str, str]:
    """Backend -> why it cannot be had here, empty where it can."""
    compiler = "" if torch.device(device).type != "cpu" or has_compiler() else "there is no C++ compiler"
    return {"eager": "", "torchscript": "", "inductor": compiler}


def choose_backend(model: FaceModel, images: int, threads: int) -> tuple[str, ...]:
    """What `auto` means for so many images here: backends, the best first, eager last.

    Follows from the amount of work and the kind of machine alone.
    """
    if isinstance(model, CompiledModel):
        return (model.info.backend,)
    kind = model.device.type
    rate = RATES.get(kind, RATES["cpu"]) * (threads if kind == "cpu" else 1)
    work = images * _flops(model)
    layers = sum(layer.kind in ("Conv2d", "Linear") for layer in model.layers)
    seconds = {
        name: SETUP[name][0] + SETUP[name][1] * layers + work / rate * SHARES[name]
        for name, problem in available(model.device).items()
        if not problem
    }
    faster = [name for name in seconds if seconds[name] <= seconds["eager"]]
    return tuple(sorted(faster, key=lambda name: (seconds[name], name)))


def build_program(
    model: FaceModel,
    taps: Sequence[Layer],
    *,
    target: str = "loss",
    activation: str = "signed",
    registration: str = "resize",
    backend: str = "eager",
    precision: str = "fp32",
) -> Program:
    """A program by a backend, checked.

    Args:
        model: the model.
        taps: where maps are made.
        target, activation, registration: see `Program`.
        backend: `eager`, `torchscript` or `inductor`.
        precision: `fp32`, `tf32` or `bf16`.

    Raises:
        RequestError: the backend cannot follow the model, is not to be had here, or gives wrong results.
    """
    check_precision(precision, model.device)
    if model.network.training:
        raise RequestError(f"the network of {model.name} is in training mode: call .eval()")
    program = Program(model, taps, target, activation, registration, precision)
    if isinstance(model, CompiledModel):
        return _of_file(program, model, target, activation, registration)
    if backend == "eager":
        if precision == "bf16":
            rounded = cast_model(model)
            passes = EagerPasses(rounded, program.taps, activation == "positive")
            return Program(rounded, taps, target, activation, registration, precision, passes)
        return program
    if problem := available(model.device)[backend]:
        raise RequestError(f"backend {backend} is not to be had here, as {problem}: use backend eager")
    recording = _record(program)
    info = _describe(program, target, activation, registration, backend)
    return _checked(program, _cached(recording, info), f"backend {backend}")


def compile_program(
    model: FaceModel,
    taps: Sequence[Layer],
    path: Path,
    *,
    target: str = "loss",
    activation: str = "signed",
    registration: str = "resize",
    backend: str = "inductor",
    precision: str = "fp32",
) -> ProgramInfo:
    """Compile a program into a file that runs without the model's source, and check what the file gives.

    Args:
        path: the file; a TorchScript archive for backend `torchscript`, native code for `inductor`.
        model, taps, target, activation, registration, backend, precision: see `build_program`.

    Raises:
        RequestError: the backend cannot follow the model, is not to be had here, or gives wrong results.
    """
    check_precision(precision, model.device)
    if isinstance(model, CompiledModel):
        raise RequestError(f"model {model.name} is a compiled program: compile the model it came from")
    if problem := available(model.device)[backend]:
        raise RequestError(f"{backend} is not to be had here, as {problem}: use torchscript (FILE.pt)")
    program = Program(model, taps, target, activation, registration, precision)
    info = _describe(program, target, activation, registration, backend)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        made = Path(folder) / path.name
        write_program(_record(program), info, made)
        _checked(program, load_passes(made, backend), f"the compiled program {path}")
        os.replace(made, path)
    return info


def _describe(program: Program, target: str, activation: str, registration: str, backend: str) -> ProgramInfo:
    """What a program is, for the file that holds it."""
    model, size = program.model, program.model.preprocessing.size
    dimensions = model.embed(torch.zeros(1, 3, size, size, device=model.device)).shape[1]
    native = backend == "inductor"
    return ProgramInfo(
        backend=backend,
        model=model.name,
        architecture=model.architecture,
        weights=model.weights,
        preprocessing=model.preprocessing,
        dimensions=dimensions,
        taps=program.taps,
        target=target,
        activation=activation,
        registration=registration,
        precision=program.precision,
        centres=program.centres,
        warnings=tap_warnings(model, program.taps, activation=activation, registration=registration),
        device=model.device.type,
        processor=processor_name(str(model.device)) if native else "",
    )


def _of_file(
    program: Program, model: CompiledModel, target: str, activation: str, registration: str
) -> Program:
    """The program of a file, if it is the one that was asked for."""
    info = model.info
    asked = {
        "target": (target, info.target),
        "activation": (activation, info.activation),
        "registration": (registration, info.registration),
        "precision": (program.precision, info.precision),
    }
    for what, (wanted, made) in asked.items():
        if wanted != made:
            raise RequestError(
                f"the program {model.name} was compiled with {what} {made}, got {wanted}: "
                f"ask for {made}, or compile it again with --{what} {wanted}"
            )
    numbers = {tap.name: number for number, tap in enumerate(info.taps)}
    program.passes = RecordedPasses(model.passes, tuple(numbers[tap.name] for tap in program.taps))
    return program


def _checked(program: Program, compiled: Passes, what: str) -> Program:
    reference = program.passes
    assert isinstance(reference, EagerPasses)
    names = [tap.name for tap in program.taps]
    parameter = next(program.model.network.parameters(), torch.empty(0))
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    passes = RecordedPasses(compiled, tuple(range(len(names))), dtype)
    check_passes(passes, reference, names, program.precision, what)
    program.passes = passes
    return program


def _record(program: Program) -> Recording:
    passes, model = program.passes, program.model
    assert isinstance(passes, EagerPasses)
    size = model.preprocessing.size
    dimensions = model.embed(torch.zeros(1, 3, size, size, device=model.device)).shape[1]
    joint = record(passes, dimensions)
    fold(joint)
    if program.precision == "bf16":
        cast_graph(joint)
    return split(joint)


def _cached(recording: Recording, info: ProgramInfo) -> Passes:
    """The compiled recording from the user's cache, made where it is not there or cannot be loaded."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "leamfast" / "programs"
    suffix = ".pt2" if info.backend == "inductor" else ".pt"
    path = folder / f"{_key(recording, info)}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_file():
            os.utime(path)  # the newest are kept
            with suppress(RequestError):
                return load_passes(path, info.backend)
        write_program(recording, info, path)
        _prune(folder)
    except OSError as exc:
        raise RequestError(
            f"compiled programs cannot be kept in {folder} ({exc.strerror}): set XDG_CACHE_HOME to a folder "
            "that can be written, or use backend eager"
        ) from exc
    return load_passes(path, info.backend)


def _prune(folder: Path) -> None:
    """Delete all but the newest programs; another process may do the same."""
    ages = {}
    for path in folder.glob("[0-9a-f]*.pt*"):
        with suppress(OSError):
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=lambda path: ages[path], reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)


def _key(recording: Recording, info: ProgramInfo) -> str:
    """Hash of everything that the compiled file depends on."""
    total = hashlib.sha256(f"{info.backend} {info.device} {info.processor} {info.torch}".encode())
    total.update(Path(compiling.__file__).read_bytes())
    for graph in (recording.forward, recording.backward):
        total.update(graph.code.encode())
        total.update(tensors_sha256(graph.state_dict()).encode())
    return total.hexdigest()


def _flops(model: FaceModel) -> float:
    """Floating-point operations of a forward and a backward pass for one image."""
    from torch.utils.flop_counter import FlopCounterMode  # brings triton

    size = model.preprocessing.size
    with FlopCounterMode(display=False) as counter:
        model.embed(torch.zeros(1, 3, size, size, device=model.device))
    return 2.0 * counter.get_total_flops()
