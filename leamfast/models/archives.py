"""Models in files without source: TorchScript archives and torch.export archives, as trees of modules."""

import os
import re
import zipfile
from pathlib import Path

import torch
from torch import nn

from leamfast.errors import RequestError, first_line
from leamfast.models.embedding import as_embedding
from leamfast.models.exported import load_exported
from leamfast.models.torchscript import load_torchscript
from leamfast.models.weights import file_sha256
from leamfast.models.zips import check_end, check_members

__all__ = ["archive_name", "is_archive", "load_archive"]


def is_archive(text: str) -> bool:
    """Whether a SPEC without its alias names an archive: FILE.pt or FILE.pt2, or a file as it is."""
    return "=" not in text and (text.endswith((".pt", ".pt2")) or os.path.isfile(os.path.expanduser(text)))


def archive_name(path: Path) -> str:
    """The name of the results of an archive: that of its file, without what a name may not have."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.stem).lstrip("._-") or "archive"


def load_archive(path: Path, size: int) -> tuple[nn.Module, str]:
    """The network in an archive; none of what it holds is run but operators of torch.

    One that does not take float32 images, as it was saved in another precision, is made float32.

    Args:
        path: the archive.
        size: side of an input image in pixels.

    Returns:
        The network in evaluation mode on the CPU, with the names of its modules; and the file's SHA-256.

    Raises:
        RequestError: the file is no archive, holds more than a model, or does not take such images.
    """
    if not os.path.isfile(path):
        raise RequestError(f"archive {path} does not exist")
    try:
        network = _usable(_load(path), path.name, size)
    except RequestError as exc:
        raise RequestError(f"archive {path}: {exc}") from exc
    except Exception as exc:  # a file that is damaged, or made to do harm, can say anything
        raise RequestError(
            f"archive {path} is damaged or of a kind not known here: {type(exc).__name__}: {first_line(exc)}"
        ) from exc
    return network, file_sha256(path)


def _load(path: Path) -> nn.Module:
    """The network, by the kind of archive that the names inside show."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            check_end(file)
            if min((member.header_offset for member in archive.infolist()), default=1) > 0:
                raise zipfile.BadZipFile  # the end of a larger file
            check_members(archive, path.stat().st_size, "it")
            damaged = archive.testzip()
            inside = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    except zipfile.BadZipFile as exc:
        raise RequestError(
            "it is not a zip file, or only a part of one: give a TorchScript or torch.export archive"
        ) from exc
    if damaged is not None:
        raise RequestError(f"it is damaged in {damaged}: copy it again")
    if inside & {"archive_format", "serialized_exported_program.json"}:
        return load_exported(path)
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return load_torchscript(path)
    if "data.pkl" in inside:
        raise RequestError(f"it is a checkpoint of weights, which needs the network's name: NAME={path}")
    raise RequestError("it holds no model: give a TorchScript or torch.export archive")


def _usable(network: nn.Module, name: str, size: int) -> nn.Module:
    """The network, which takes float32 images, one or several at a time."""
    try:
        _try(network, name, size)
    except RequestError:
        if all(p.dtype == torch.float32 for p in network.parameters() if p.is_floating_point()):
            raise
        _try(network.float(), name, size)
    return network


def _try(network: nn.Module, name: str, size: int) -> None:
    """Run forward and backward passes, so that what is wrong is said now."""
    for count in (1, 2):
        images = torch.zeros(count, 3, size, size, requires_grad=True)
        try:
            with torch.enable_grad():
                embeddings = as_embedding(network(images), name)
                if embeddings.requires_grad:
                    torch.autograd.grad(embeddings.sum(), images, allow_unused=True)
        except RequestError:
            raise
        except Exception as exc:  # whatever operators say of sizes that do not fit
            raise RequestError(
                f"it does not run forward and backward on {count} images of {size} pixels: {first_line(exc)}"
            ) from exc
        if len(embeddings) != count:
            raise RequestError(f"it gives {len(embeddings)} embeddings for {count} images")
