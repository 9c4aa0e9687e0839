"""Zip files from others, before anything in them is read."""

import io
import os
import pickle
import struct
import warnings
import zipfile
from typing import BinaryIO

import torch

from leamfast.errors import RequestError

__all__ = ["check_end", "check_members", "read_tensors"]

SLACK = 64 << 20  # bytes that members may unpack to beyond the file's size: only texts are compressed


END = struct.Struct("<4s16xH")  # signature, length of the comment behind it
LOCATOR = struct.Struct("<4s4xQ4x")  # signature, where the zip64 end lies
END64 = 56  # bytes


def check_end(file: BinaryIO) -> None:
    """Raise unless every reader finds the same list of members: it lies where all of them look.

    Python takes the zip64 end from where it must lie, before its locator, and others from where the locator
    says. A file with two lists could show a harmless one to whoever checks, and another to who runs it.

    Args:
        file: the file, opened for reading; its position is changed.

    Raises:
        BadZipFile: see above, or there is a comment, or no end.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END.size))
    end = file.read(END.size)
    if len(end) < END.size or END.unpack(end) != (b"PK\5\6", 0):
        raise zipfile.BadZipFile("it does not end as a zip file without a comment")
    place = size - END.size - LOCATOR.size
    if place < 0:
        return
    file.seek(place)
    signature, where = LOCATOR.unpack(file.read(LOCATOR.size))
    if signature == b"PK\6\7" and where != place - END64:
        raise zipfile.BadZipFile("it has two lists of members")


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
