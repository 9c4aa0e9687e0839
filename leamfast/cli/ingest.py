"""`leamfast ingest`: a data set of any format as one manifest."""

from pathlib import Path
from typing import Annotated

import typer

from leamfast.cli.output import note, print_json
from leamfast.datasets.formats import AUTO, FORMATS, find_format, read_manifest
from leamfast.datasets.ingest import check_table_name, manifest_bytes
from leamfast.datasets.limits import limited
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageFullError, write_atomically

__all__ = ["ingest"]


def ingest(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of identity folders, manifest, or a data set in another format.", metavar="DATA"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Manifest to write: FILE.csv or FILE.parquet.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}, or auto: by what DATA is.")] = AUTO,
    limit_identities: Annotated[
        int | None, typer.Option(help="At most so many identities, drawn with --seed.", show_default="all")
    ] = None,
    images_per_identity: Annotated[
        int | None, typer.Option(help="At most so many images of each, drawn likewise.", show_default="all")
    ] = None,
    min_images: Annotated[int, typer.Option(help="Leave out identities with fewer images.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed; the same one chooses the same.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace --out where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the images of a data set in one manifest, with counts of what was left out and why.

    Nothing is copied: paths below the manifest's folder are written relative to it, others absolutely.
    """
    check_table_name(out)
    _check_free(out, force)
    name = find_format(data, format).name
    manifest = limited(
        read_manifest(data, name),
        identities=limit_identities,
        images_per_identity=images_per_identity,
        min_images=min_images,
        seed=seed,
    )
    content = manifest_bytes(manifest, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_free(out, force)
    try:
        write_atomically(out, content)
    except StorageFullError as exc:
        text = f"no room for {out} ({len(content):,} bytes): free some and try again"
        raise StorageFullError(exc.errno, text) from exc

    images, people = len(manifest.entries), len(manifest.identities)
    if as_json:
        print_json(
            {
                "out": out,
                "format": name,
                "images": images,
                "identities": people,
                "ignored": manifest.ignored,
                "left_out": manifest.left_out,
            }
        )
        return
    note(f"{images} images of {people} people ({name}), listed in {out}")
    if manifest.ignored:
        note(f"{manifest.ignored} files without an image's suffix are ignored")
    for reason, number in manifest.left_out.items():
        note(f"left out: {number} x {reason}")


def _check_free(out: Path, force: bool) -> None:
    if out.is_dir() or (out.exists() and not force):
        raise RequestError(
            f"--out must be a new file, got {out}, which exists: give another name"
            + ("" if out.is_dir() else ", or --force to replace it")
        )
