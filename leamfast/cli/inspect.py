"""`leamfast models`, `layers` and `info`: what there is to work with."""

import platform
from importlib import metadata
from typing import Annotated

import torch
import typer

from leamfast.cli.output import print_json, print_table
from leamfast.leam.taps import select_taps
from leamfast.models.loading import brings_preprocessing, load_model
from leamfast.models.zoo import ZOO

__all__ = ["info", "layers", "models"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
PACKAGES = (
    "leamfast",
    "torch",
    "triton",
    "numpy",
    "opencv-python",
    "pillow",
    "pyfacer",
    "pot",
    "h5py",
    "ray",
    "typer",
)


def models(as_json: Json = False) -> None:
    """List the named models, the file that each takes, and who publishes it."""
    rows = [
        {
            "name": model.name,
            "architecture": model.architecture,
            "input": model.preprocessing.size,
            "weights": model.weights or "shipped with leamfast",
        }
        for model in ZOO.values()
    ]
    if as_json:
        print_json({"models": rows})
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def layers(
    spec: Annotated[str, typer.Argument(help="Model SPEC; a named model needs no weights here.")],
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow module:factory to run.")] = False,
    input_size: Annotated[int, typer.Option(help="Input side in pixels, for a SPEC that brings none.")] = 112,
    as_json: Json = False,
) -> None:
    """List the layers of a model that can be tapped, in the order in which a forward pass reaches them."""
    if spec in ZOO and ZOO[spec].weights:
        spec = f"{spec}=random:0"  # shapes do not depend on the weights
    brought = (
        dict(size=input_size, channels="rgb", mean=(0, 0, 0), std=(1, 1, 1))
        if trust_code and not brings_preprocessing(spec)
        else None
    )
    model = load_model(spec, preprocessing=brought, trust_code=trust_code)
    auto = {tap.name for tap in select_taps(model, "auto")}
    rows = [
        {"layer": t.name, "kind": t.kind, "channels": t.channels, "height": t.height, "width": t.width,
         "auto": t.name in auto}
        for t in model.taps()
    ]  # fmt: skip
    if as_json:
        print_json({"model": model.name, "layers": rows})
    else:
        print_table(list(rows[0]), [[*list(row.values())[:-1], "yes" if row["auto"] else ""] for row in rows])


def info(as_json: Json = False) -> None:
    """Show versions and what this machine computes with."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    machine = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": ", ".join(gpus) or "none",
    }
    if as_json:
        print_json({"versions": versions, "machine": machine})
    else:
        print_table(["", ""], [*machine.items(), *versions.items()])
