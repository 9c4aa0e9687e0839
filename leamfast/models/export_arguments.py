"""Arguments in the JSON of a torch.export archive."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from leamfast.errors import RequestError
from leamfast.models.export_reader import SCALAR_TYPES

__all__ = ["SYMBOLIC", "Device", "Ref", "Stored", "names_in", "read_argument"]

SYMBOLIC = ("as_sym_int", "as_sym_float", "as_sym_bool")
LAYOUTS = {7: torch.strided}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
LITERAL = ("as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings", "as_int_lists")


@dataclass(frozen=True)
class Ref:
    """A value that the input or an operation gives."""

    name: str


@dataclass(frozen=True)
class Stored:
    """A parameter, buffer or constant: the path of its module, and its name in it."""

    path: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, full_name: str) -> "Stored":
        *path, name = full_name.split(".")
        return cls(tuple(path), name)


@dataclass(frozen=True)
class Device:
    """Where the network runs, whatever device the archive names."""


def read_argument(content: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """An argument of an operation.

    Args:
        content: its JSON, whose only key says what it is.
        known: name -> argument that stands for it.

    Raises:
        RequestError: it is of a kind that is not known here.
    """
    ((kind, value),) = content.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return known[value["name"]]
        case "as_name":
            return known[value]
        case "as_tensors":
            return [known[part["name"]] for part in value]
        case "as_nested_tensors":
            return [[known[part["name"]] for part in parts] for parts in value]
        case "as_float":
            return float(value)
        case "as_floats":
            return [float(part) for part in value]
        case "as_complex":
            return complex(value["real"], value["imag"])
        case "as_scalar_type":
            return SCALAR_TYPES[value]
        case "as_memory_format":
            return MEMORY_FORMATS[value]
        case "as_layout":
            return LAYOUTS[value]
        case "as_device":
            return Device()
        case "as_sym_int" | "as_sym_float" | "as_sym_bool" | "as_optional_tensor":
            return read_argument(value, known)
        case "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors":
            return [read_argument(part, known) for part in value]
    if kind in LITERAL:
        return value
    raise RequestError(f"an argument of kind {kind} is not known here")


def names_in(template: Any) -> Iterator[str]:
    """The names of the values in an argument."""
    if isinstance(template, Ref):
        yield template.name
    elif isinstance(template, list | tuple):
        for part in template:
            yield from names_in(part)
