"""The formats of data sets, and how DATA is recognised as one of them.

Without `--format` the first of these takes DATA:

1. `manifest`: a .csv or .parquet file, unless it has IMDb-Face's header, or a folder that holds
   `manifest.csv` or `manifest.parquet`, whatever else lies there: what the user wrote goes first.
2. `imdbface`: a .csv file with IMDb-Face's header, or a folder with one called `IMDb-Face.csv`.
3. `lfw`: a file `pairs.txt` or `people.txt`, or a folder that holds one.
4. `recordio`: a .rec file, or a folder with `train.rec`.
5. `bin`: a .bin file.
6. `webdataset`: a .tar file, or a folder that holds .tar files and no folders.
7. `folders`: any other folder.

Only names, and the first line of a .csv file, are looked at.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from leamfast.datasets.folders import read_folders
from leamfast.datasets.imdbface import is_imdbface, read_imdbface
from leamfast.datasets.lfw import is_lfw, read_lfw
from leamfast.datasets.manifest import Manifest, is_plain
from leamfast.datasets.tables import find_table, read_table
from leamfast.errors import RequestError

__all__ = ["AUTO", "FORMATS", "Format", "find_format", "read_manifest"]

AUTO = "auto"
UNFINISHED = ".align/run.toml"
"""What `leamfast align` puts into its folder first; manifest.csv comes last."""


@dataclass(frozen=True)
class Format:
    """A kind of data set.

    Attributes:
        name: what `--format` calls it.
        summary: what DATA then is, in a few words.
        recognises: whether a path that exists looks like it.
        read: its images.
    """

    name: str
    summary: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Manifest]


def find_format(data: Path, format: str = AUTO) -> Format:
    """The format of DATA.

    Args:
        data: what the user names.
        format: a name of `FORMATS`, or `auto`, by the rules above.

    Raises:
        RequestError: there is no such format, data is missing or cannot be read, or nothing recognises it.
    """
    if format not in (AUTO, *FORMATS):
        raise RequestError(f"--format must be one of {', '.join((AUTO, *FORMATS))}, got {format!r}")
    with _Readable(data):
        if not data.is_dir() and not data.is_file():
            raise RequestError(
                f"DATA must be a folder of images or a manifest, got {data}: there is no such file or folder"
            )
        if (data / UNFINISHED).is_file() and not (data / "manifest.csv").is_file():
            raise RequestError(
                f"DATA must be whole, got {data}, where `leamfast align` was stopped: finish it with --resume"
            )
        if format != AUTO:
            return FORMATS[format]
        for candidate in FORMATS.values():
            if candidate.recognises(data):
                return candidate
    raise RequestError(
        "DATA must be a folder of identity folders or a .csv or .parquet manifest, "
        f"got the file {data}: --format names the other formats ({', '.join(FORMATS)})"
    )


def read_manifest(data: Path | str, format: str = AUTO) -> Manifest:
    """List the images of DATA.

    Args:
        data: a folder of identity folders, a manifest, or a data set in another format of `FORMATS`.
        format: its name, or `auto`.

    Raises:
        RequestError: data is missing, in no known format, holds no image, breaks a rule of its format, or has
            names that are not UTF-8 or hold a NUL byte.
    """
    path = Path(data)
    found = find_format(path, format)
    with _Readable(path):
        manifest = found.read(path)
        _check_names(manifest)
    return manifest


def _check_names(manifest: Manifest) -> None:
    """Refuse names that tables and results cannot hold; readers that know the row have said it before."""
    root = os.path.abspath(manifest.root)
    if not is_plain(root):
        raise RequestError(f"DATA must have names in UTF-8, got the folder {root!r}: rename it")
    for entry in manifest.entries:
        # One look at all texts of an entry: there may be tens of millions.
        if is_plain(
            f"{entry.path}{entry.identity}{entry.label}{entry.inside}{''.join(entry.metadata.values())}"
        ):
            continue
        texts = {"path": entry.path, "identity": entry.identity, "label": entry.label or ""}
        texts |= {"name inside": entry.inside} | entry.metadata
        what, text = next(item for item in texts.items() if not is_plain(item[1]))
        raise RequestError(
            f"DATA must have names in UTF-8 without NUL bytes, got the {what} {text!r} of {entry.name!r}: "
            "rename it"
        )


class _Readable:
    """Turns what the system says of files inside the block into the sentence that names DATA."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        if isinstance(exc, OSError):
            reason = (exc.strerror or str(exc)).lower()
            raise RequestError(f"DATA must be readable, got {exc.filename or self.data}: {reason}") from exc


def _is_table(path: Path) -> bool:
    file = find_table(path)
    return file is not None and (path.is_dir() or not is_imdbface(file))


def _is_webdataset(path: Path) -> bool:
    """Whether there are shards; the listing of a folder of folders ends at the first one."""
    if not path.is_dir():
        return path.suffix.lower() == ".tar"
    shards = False
    with os.scandir(path) as items:
        for item in items:
            if not item.name.startswith("."):
                if item.is_dir():
                    return False
                shards = shards or item.name.lower().endswith(".tar")
    return shards


def _later(module: str, function: str) -> Callable[[Path], Manifest]:
    """A reader that is imported when it is called."""

    def read(path: Path) -> Manifest:
        reader: Callable[[Path], Manifest] = getattr(import_module(f"leamfast.datasets.{module}"), function)
        return reader(path)

    return read


FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        Format("manifest", "a CSV or Parquet file with the columns path and identity", _is_table, read_table),
        Format("imdbface", "IMDb-Face's CSV beside its pictures", is_imdbface, read_imdbface),
        Format("lfw", "Name/Name_0001.jpg with pairs.txt or people.txt", is_lfw, read_lfw),
        Format(
            "recordio",
            "InsightFace's train.rec and train.idx",
            lambda path: (path / "train.rec").is_file() if path.is_dir() else path.suffix.lower() == ".rec",
            _later("recordio", "read_recordio"),
        ),
        Format(
            "bin",
            "InsightFace's verification sets, such as lfw.bin",
            lambda path: path.is_file() and path.suffix.lower() == ".bin",
            _later("verification", "read_verification"),
        ),
        Format(
            "webdataset",
            "WebDataset's tar files, one or a folder of them",
            _is_webdataset,
            _later("webdataset", "read_webdataset"),
        ),
        Format("folders", "a folder with a folder of images for each identity", Path.is_dir, read_folders),
    )
}
"""The formats by name, in the order in which they are tried."""
