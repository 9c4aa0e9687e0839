"""Models in files without source: TorchScript archives and torch.export archives, as trees of modules."""

import re
import zipfile
from pathlib import Path

import torch
from torch import nn

from leamfast.errors import RequestError
from leamfast.models.embedding import as_embedding
from leamfast.models.exported import load_exported
from leamfast.models.torchscript import load_torchscript
from leamfast.models.weights import file_sha256

__all__ = ["archive_name", "is_archive", "load_archive"]


def is_archive(text: str) -> bool:
    """Whether a SPEC without its alias names an archive: FILE.pt or FILE.pt2, or a file as it is."""
    return "=" not in text and (text.endswith((".pt", ".pt2")) or Path(text).expanduser().is_file())


def archive_name(path: Path) -> str:
    """The name of the results of an archive: that of its file, without what a name may not have."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.stem).lstrip("._-") or "archive"


def load_archive(path: Path, size: int) -> tuple[nn.Module, str]:
    """The network in an archive; nothing in it is unpickled, and none of it runs but its operators.

    Args:
        path: the archive.
        size: side of an input image in pixels.

    Returns:
        The network in evaluation mode on the CPU, with the names of its modules; and the file's SHA-256.

    Raises:
        RequestError: the file is no archive, holds more than a model, or does not take such images.
    """
    if not path.is_file():
        raise RequestError(f"archive {path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as exc:
        raise RequestError(f"archive {path} cannot be read: {exc}") from exc
    if any(name.startswith("code/") for name in members):
        network: nn.Module = load_torchscript(path)
    elif "archive_format" in members or any(name.startswith("models/") for name in members):
        network = load_exported(path)
    else:
        kind = "a checkpoint of weights" if "data.pkl" in members else "no model"
        raise RequestError(
            f"archive {path} holds {kind}: a TorchScript or torch.export archive is needed (or NAME={path})"
        )
    network.eval().requires_grad_(False)
    for images in (1, 2):
        try:
            with torch.no_grad():
                embeddings = as_embedding(network(torch.zeros(images, 3, size, size)), path.name)
        except RequestError:
            raise
        except Exception as exc:  # whatever operators say of sizes that do not fit
            raise RequestError(
                f"archive {path} does not take {images} images of {size} pixels: "
                f"{(str(exc) or type(exc).__name__).splitlines()[0]}"
            ) from exc
        if len(embeddings) != images:
            raise RequestError(f"archive {path} gives {len(embeddings)} embeddings for {images} images")
    return network, file_sha256(path)
