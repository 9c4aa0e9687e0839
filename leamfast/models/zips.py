"""Zip files from others, before anything in them is read."""

import io
import pickle
import warnings
import zipfile

import torch

from leamfast.errors import RequestError

__all__ = ["check_members", "read_tensors"]

SLACK = 64 << 20  # bytes that members may unpack to beyond the file's size: only texts are compressed


def check_members(archive: zipfile.ZipFile, size: int, what: str) -> None:
    """Raise where an archive unpacks to far more than it is, or shows different readers different members.

    Args:
        archive: the opened archive.
        size: of the file in bytes.
        what: the file, for messages.

    Raises:
        RequestError: see above.
    """
    names = [name.lower() for name in archive.namelist()]
    if len(set(names)) != len(names):
        raise RequestError(f"{what} holds two members of the same name, which no model does: save it again")
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > size + SLACK:
        raise RequestError(
            f"{what} has {size} bytes but unpacks to {unpacked}, which no model does: save it again"
        )


def read_tensors(content: bytes, what: str) -> object:
    """What torch.save wrote, on the CPU, where it is tensors and plain values only.

    Raises:
        RequestError: it is not, so that unpickling could run code; or it is damaged.
    """
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_members(archive, len(content), what)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # read as it is, or refused
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise RequestError(
            f"{what} holds more than tensors, and nothing else is unpickled because that could run code: "
            "export the model again with tensors as its only inputs"
        ) from exc
    except Exception as exc:  # damaged files make the reader raise nearly anything
        raise RequestError(
            f"{what} is not readable as tensors ({type(exc).__name__}): save it again"
        ) from exc
