"""What a torch.export archive (`.pt2`) says, read without running anything that it holds.

torch.export.load is not for files of others: it unpickles example inputs, weights and constants, evaluates
the expressions of symbolic sizes, and executes Python text made with names from the file. But an archive is
JSON, which names operators and values, and the bytes of tensors: that is all that is read here. What older
archives pickle is read as tensors only. A pickle of anything else is refused wherever it lies: a file that
holds one is not what it should be.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.models.operators import DTYPES
from leamfast.models.zips import read_tensors

__all__ = ["SCALAR_TYPES", "Archive", "read_archive"]

FORMAT = 8  # major version of the schema, since torch 2.6
SCALAR_TYPES = {i: dtype for i, dtype in enumerate((*DTYPES[:12], torch.bfloat16), 1) if dtype}
COMPILED = re.compile(r"(^|/)data/aotinductor/|\.(so|dylib|dll|o|cubin|cpp)$")
OBJECTS = re.compile(r"(^|/)(custom|opaque)_obj_[^/]*$")
PICKLES = re.compile(r"\.(pt|pkl|pickle)$")
RECORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Archive:
    """An exported program as its archive holds it.

    Attributes:
        program: the JSON of the program.
        tensors: full name -> parameter, buffer or constant, on the CPU.
    """

    program: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_archive(path: Path) -> Archive:
    """Read an archive of torch.export.save; its zip file has been looked at before.

    Raises:
        RequestError: it holds compiled code, pickles of more than tensors, or a format not known here.
    """
    with zipfile.ZipFile(path) as file:
        _refuse_code(file)
        members = _Members(file)
        program = json.loads(members.read(members.program))
        major = program["schema_version"]["major"]
        if major != FORMAT:
            raise RequestError(
                f"it has format {major} of torch.export where {FORMAT} is read "
                f"(torch {program.get('torch_version', 'unknown')}): export it again with torch 2.6 or later"
            )
        tensors = {**_tensors(members, "weights"), **_tensors(members, "constants")}
    return Archive(program, tensors)


class _Members:
    """The members of an archive by their names below its root folder, in either layout."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self.file = file
        names = file.namelist()
        root = next((name for name in names if re.fullmatch(r"[^/]+/archive_format", name)), "/")
        self.root = root.removesuffix("archive_format").removeprefix("/")
        programs = [
            name for name in names if re.fullmatch(re.escape(self.root) + r"models/[^/]+\.json", name)
        ]
        usual = f"{self.root}models/model.json"
        found = usual if usual in programs else programs[0] if programs else ""
        self.old = not found
        self.program = found.removeprefix(self.root) or "serialized_exported_program.json"
        self.model = Path(self.program).stem

    def __contains__(self, name: str) -> bool:
        return self.root + name in self.file.namelist()

    def read(self, name: str) -> bytes:
        return self.file.read(self.root + name)


def _refuse_code(file: zipfile.ZipFile) -> None:
    """Refuse members that are code or that unpickling would make into code."""
    for name in file.namelist():
        if COMPILED.search(name):
            raise RequestError(
                f"it is a compiled package ({name}), which is code: give the archive that torch.export.save "
                "wrote"
            )
        if OBJECTS.search(name):
            raise RequestError(
                f"it holds objects that are no tensors ({name}), and nothing else is unpickled because that "
                "could run code: export a model of tensors only"
            )
    for name in file.namelist():
        if PICKLES.search(name) and (content := file.read(name)):
            read_tensors(content, name)


def _tensors(members: _Members, kind: str) -> dict[str, Tensor]:
    """Weights or constants by full name: bytes described by JSON, or pickled tensors of older archives."""
    old = {"weights": "serialized_state_dict.pt", "constants": "serialized_constants.pt"}[kind]
    pickled = old if members.old else f"data/{kind}/{members.model}.pt"
    if pickled in members:
        content = members.read(pickled)
        found = read_tensors(content, pickled) if content else {}
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise RequestError(f"it holds {kind} that are no tensors: export the model again")
        return dict(found)
    config = json.loads(members.read(f"data/{kind}/{members.model}_{kind}_config.json"))["config"]
    storages: dict[str, bytearray] = {}
    tensors = {}
    for name, payload in config.items():
        record = payload["path_name"]
        if payload["use_pickle"] or payload["tensor_meta"] is None or not RECORD.fullmatch(record):
            raise RequestError(
                f"it holds {name} as a pickle, which is not read because that could run code: "
                "export a model of plain tensors"
            )
        if record not in storages:
            storages[record] = bytearray(members.read(f"data/{kind}/{record}"))
        tensors[name] = _tensor(storages[record], payload["tensor_meta"])
    return tensors


def _tensor(storage: bytearray, meta: Mapping[str, Any]) -> Tensor:
    """A tensor from the bytes of its storage; torch refuses shapes that do not fit in."""
    dtype = SCALAR_TYPES[meta["dtype"]]
    sizes, strides = ([length["as_int"] for length in meta[key]] for key in ("sizes", "strides"))
    flat = torch.frombuffer(storage, dtype=dtype) if storage else torch.empty(0, dtype=dtype)
    return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
