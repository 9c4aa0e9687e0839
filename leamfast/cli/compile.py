"""`leamfast compile`: a model and its taps as one file that runs without the model's source."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from leamfast.cli.output import note, print_json
from leamfast.cli.preprocessing import given_preprocessing
from leamfast.errors import RequestError
from leamfast.leam.backends import compile_program
from leamfast.leam.presets import preset as named_preset
from leamfast.leam.taps import select_taps
from leamfast.models.compiled import is_program
from leamfast.models.devices import check_device
from leamfast.models.loading import load_model

__all__ = ["compile_"]

FORMATS = {".pt": "torchscript", ".pt2": "inductor"}


def compile_(
    spec: Annotated[str, typer.Argument(help="Model SPEC, as batch takes it.")],
    out: Annotated[Path, typer.Option(help="FILE.pt2 (native code) or FILE.pt (TorchScript archive).")],
    layers: Annotated[str, typer.Option(help="auto, all or names separated by commas.")] = "auto",
    preset: Annotated[
        str | None, typer.Option(help="paper or faithful, in place of the next three.", show_default="paper")
    ] = None,
    target: Annotated[str, typer.Option(help="loss or similarity.")] = "loss",
    activation: Annotated[str, typer.Option(help="signed or positive.")] = "signed",
    registration: Annotated[str, typer.Option(help="resize or receptive.")] = "resize",
    precision: Annotated[str, typer.Option(help="fp32, tf32 (on CUDA) or bf16.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N, on which it will run.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compile and check with.")] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Input side in pixels, for a SPEC that brings none.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Three channel means, for such a SPEC.")] = None,
    std: Annotated[str | None, typer.Option(help="Three standard deviations, for such a SPEC.")] = None,
    channels: Annotated[str | None, typer.Option(help="rgb or bgr, for such a SPEC.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow module:factory to run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compile a model with its taps into one file, which `leamfast batch --model FILE --trust-code` runs.

    The file needs neither the model's source nor a compiler where it runs: taps, preprocessing, target and
    the hash of the weights are in it. Its maps are checked against autograd before it is kept.
    """
    if out.suffix not in FORMATS:
        raise RequestError(f"--out must end in .pt2 (native code) or .pt (TorchScript), got {out}")
    if out.is_dir() or not out.parent.is_dir():
        raise RequestError(f"--out {out} must be a file in a folder that exists")
    if out.exists() and not is_program(out):
        raise RequestError(f"--out {out} exists and is no compiled program: it is not overwritten")
    check_device(device)
    if preset is not None:
        chosen = named_preset(preset)
        target, activation, registration = chosen.target, chosen.activation, chosen.registration
    if threads is not None:
        torch.set_num_threads(threads)
    brought = given_preprocessing(input_size, mean, std, channels)
    model = load_model(spec, preprocessing=brought, trust_code=trust_code, device=device)
    note(f"compiling {model.name}; this takes a minute or more")
    info = compile_program(
        model,
        select_taps(model, layers),
        out,
        target=target,
        activation=activation,
        registration=registration,
        backend=FORMATS[out.suffix],
        precision=precision,
    )
    if as_json:
        print_json({"file": out, **asdict(info)})
    else:
        note(f"{out}: {info.model}, {len(info.taps)} taps, by {info.backend} for {info.device}")
