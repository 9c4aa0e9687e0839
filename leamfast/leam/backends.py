"""Who computes a program: autograd, a TorchScript archive, or native code by Inductor.

A backend other than autograd runs a recording of the program, compiled into a file that is kept for the next
time, and is checked against autograd whenever it starts.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from leamfast.errors import RequestError
from leamfast.leam.checking import check_passes
from leamfast.leam.compiling import has_compiler, write_program
from leamfast.leam.diagnostics import tap_warnings
from leamfast.leam.eager import EagerPasses
from leamfast.leam.flops import count_flops
from leamfast.leam.folding import fold
from leamfast.leam.graphed import GraphedPasses
from leamfast.leam.precision import cast_graph, cast_model, check_precision
from leamfast.leam.program import Program
from leamfast.leam.program_cache import cache_path, cached
from leamfast.leam.recorded import RecordedPasses
from leamfast.leam.recording import Recording, record, split
from leamfast.models.compiled import CompiledModel, Passes, ProgramInfo, load_passes
from leamfast.models.devices import processor_name
from leamfast.models.face_model import FaceModel
from leamfast.models.layers import Layer

__all__ = ["BACKENDS", "available", "build_program", "choose_backend", "compile_program"]

BACKENDS = ("auto", "eager", "torchscript", "inductor")

RATES = {"cpu": 50e9, "cuda": 20e12}  # FLOP/s of eager float32, of a CPU's thread or a GPU
SETUP = {"eager": (0.0, 0.0), "torchscript": (5.0, 0.2), "inductor": (10.0, 1.5)}
SHARES = {"eager": 1.0, "torchscript": 0.75, "inductor": 0.6}
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
    work = images * count_flops(model)
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
    kept: Path | None = None,
) -> Program:
    """A program by a backend, checked.

    Args:
        model: the model.
        taps: where maps are made.
        target, activation, registration: see `Program`.
        backend: `eager`, `torchscript` or `inductor`; of a compiled program `auto`, or its own.
        precision: `fp32`, `tf32` or `bf16`.
        kept: `Program.kept` of the same program in another process, which saves recording it again.

    Raises:
        RequestError: the backend cannot follow the model, is not to be had here, or gives wrong results.
    """
    check_precision(precision, model.device)
    if model.network.training:
        raise RequestError(f"the network of {model.name} is in training mode: call .eval()")
    program = Program(model, taps, target, activation, registration, precision)
    if isinstance(model, CompiledModel):
        return _of_file(program, model, target, activation, registration, backend)
    if backend == "eager":
        if precision == "bf16":
            rounded = cast_model(model)
            passes = EagerPasses(rounded, program.taps, activation == "positive")
            return Program(rounded, taps, target, activation, registration, precision, passes)
        return program
    if problem := available(model.device)[backend]:
        raise RequestError(f"backend {backend} is not to be had here, as {problem}: use backend eager")
    compiled = None
    if kept is not None and kept.is_file():
        with suppress(RequestError):
            compiled = load_passes(kept, backend, model.device)
    if kept is None or compiled is None:
        recording = _record(program)
        kept = cache_path(backend, model.device, recording)

        def write(path: Path) -> None:
            write_program(recording, _describe(program, target, activation, registration, backend), path)

        compiled = cached(kept, lambda path: load_passes(path, backend, model.device), write)
    program = _checked(program, compiled, backend, f"backend {backend}")
    program.kept = kept
    return program


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
        passes = load_passes(made, backend, model.device)
        _checked(program, passes, backend, f"the compiled program {path}")
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
    program: Program, model: CompiledModel, target: str, activation: str, registration: str, backend: str
) -> Program:
    """The program of a file, if it is the one that was asked for."""
    info = model.info
    if backend not in ("auto", info.backend):
        raise RequestError(
            f"the program {model.name} was compiled by {info.backend}, got backend {backend}: "
            "ask for auto, or give the model that it came from"
        )
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
    wanted_taps = tuple(numbers[tap.name] for tap in program.taps)
    program.passes = RecordedPasses(_launched(model.passes, info.backend, model.device), wanted_taps)
    return program


def _launched(passes: Passes, backend: str, device: torch.device) -> Passes | GraphedPasses:
    """The passes as they are launched: native code for a GPU by CUDA graphs."""
    return GraphedPasses(passes) if backend == "inductor" and device.type == "cuda" else passes


def _checked(program: Program, compiled: Passes, backend: str, what: str) -> Program:
    reference = program.passes
    assert isinstance(reference, EagerPasses)
    names = [tap.name for tap in program.taps]
    parameter = next(program.model.network.parameters(), torch.empty(0))
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    launched = _launched(compiled, backend, program.model.device)
    passes = RecordedPasses(launched, tuple(range(len(names))), dtype)
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
