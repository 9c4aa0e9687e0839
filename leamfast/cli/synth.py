"""`leamfast synth`: synthetic faces with known regions."""

from pathlib import Path
from typing import Annotated

import typer

from leamfast.cli.output import note, print_json
from leamfast.datasets.synthetic import write_dataset
from leamfast.engine.progress import WorkProgress

__all__ = ["synth"]


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.", metavar="DIR")],
    identities: Annotated[int, typer.Option(help="How many people.")] = 100,
    images: Annotated[int, typer.Option(help="Images of each.")] = 10,
    plant: Annotated[
        str | None, typer.Option(help="A region, such as nose: identities then differ only there.")
    ] = None,
    free: Annotated[
        bool, typer.Option("--free", help="With --plant: all other regions are drawn anew for each image.")
    ] = False,
    size: Annotated[int, typer.Option(help="Side of an image in pixels.")] = 112,
    seed: Annotated[int, typer.Option(help="Seed; the same one gives the same faces.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Render aligned faces, one folder a person, with exact masks of the 19 regions and a manifest.

    The folder can be given to `leamfast batch` as it is, with --align none.
    """
    with WorkProgress("faces", identities * images) as progress:
        manifest = write_dataset(
            out,
            identities=identities,
            images=images,
            seed=seed,
            plant=plant,
            free=free,
            size=size,
            progress=progress.advance,
        )
    if as_json:
        print_json(
            {"out": out, "manifest": manifest, "identities": identities, "images": identities * images}
        )
    else:
        note(f"{identities * images} images of {identities} people in {out}, listed in {manifest}")
