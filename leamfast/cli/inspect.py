"""`leamfast models`, `layers` and `info`: what there is to work with."""

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import torch
import typer

from leamfast.cli.output import print_json, print_table
from leamfast.leam.taps import select_taps
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import brings_preprocessing, load_model
from leamfast.models.timm_models import PUBLISHED
from leamfast.models.zoo import ZOO, build

__all__ = ["info", "layers", "models"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
DEFAULT_SIZE = 112
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
    """List the models known by name: their input, what `auto` taps, the file each takes, and its source."""
    named, published = _zoo_rows(), _timm_rows()
    if as_json:
        print_json({"models": named + published})
        return
    for title, rows in (
        ("NAME=FILE", named),
        ("timm:FOLDER, timm:ARCH=FILE, timm:ARCH=random:SEED", published),
    ):
        short = [row | {"auto": _span(row["auto"])} for row in rows]
        print_table(list(short[0]), [list(row.values()) for row in short], title)


def _zoo_rows() -> list[dict[str, Any]]:
    taps: dict[str, list[str]] = {}
    rows = []
    for named in ZOO.values():
        if named.architecture not in taps:
            model = FaceModel(named.name, named.architecture, build(named, "meta"), named.preprocessing, "")
            taps[named.architecture] = [tap.name for tap in select_taps(model, "auto")]
        rows.append({
            "name": named.name,
            "architecture": named.architecture,
            "input": named.preprocessing.size,
            "channels": named.preprocessing.channels,
            "auto": taps[named.architecture],
            "weights": named.weights or "shipped with leamfast",
            "published": named.published,
        })  # fmt: skip
    return rows


def _timm_rows() -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "architecture": model.architecture,
            "input": 112,
            "channels": "rgb",
            "auto": list(model.taps),
            "weights": "config.json, model.safetensors",
            "published": "huggingface.co/gaunernst",
        }
        for model in PUBLISHED
    ]


def _span(taps: Sequence[str]) -> str:
    return f"{len(taps)}: {taps[0]} .. {taps[-1]}"


def layers(
    spec: Annotated[str, typer.Argument(help="Model SPEC; a named model needs no weights here.")],
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow module:factory to run.")] = False,
    input_size: Annotated[
        int | None,
        typer.Option(help="Input side in pixels, for a SPEC that brings none.", show_default="112"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the layers of a model that can be tapped, in the order in which a forward pass reaches them."""
    if spec in ZOO and ZOO[spec].weights:
        spec = f"{spec}=random:0"  # shapes do not depend on the weights
    brought = dict(size=input_size or DEFAULT_SIZE, channels="rgb", mean=(0, 0, 0), std=(1, 1, 1))
    needed = input_size is not None or not brings_preprocessing(spec)
    model = load_model(spec, preprocessing=brought if needed else None, trust_code=trust_code)
    auto = {tap.name for tap in select_taps(model, "auto")}
    rows = [
        {"layer": t.name, "kind": t.kind, "layout": t.layout, "prefix": t.prefix, "channels": t.channels,
         "height": t.height, "width": t.width, "auto": t.name in auto}
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
