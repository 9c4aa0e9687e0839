"""`run.toml`: what was asked, and everything that the values depend on.

`[request]` holds the options as asked and can be given to another run with --config. `[frozen]` holds what
the values depend on; a run is resumed only where all of it is the same.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from leamfast.errors import RequestError
from leamfast.store.arrays import SCHEMA
from leamfast.store.atomic import write_atomically

__all__ = ["differences", "read_frozen", "read_settings", "settings_sha256", "write_settings"]


def write_settings(path: Path, request: Mapping[str, Any], frozen: Mapping[str, Any]) -> None:
    """Write `run.toml`; options that were not given (None) are left out."""
    content = {"schema": SCHEMA, "request": _given(request), "frozen": _given(frozen)}
    write_atomically(path, tomli_w.dumps(content).encode())


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a `run.toml`.

    Raises:
        RequestError: it is missing, no TOML, or of another schema.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise RequestError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise RequestError(f"{path} is not valid TOML: {exc}") from exc
    if content.get("schema", SCHEMA) != SCHEMA:
        raise RequestError(f"{path} has schema {content['schema']!r} where {SCHEMA!r} is needed")
    return content


def read_frozen(path: Path) -> dict[str, Any]:
    """`[frozen]` of a run's `run.toml`.

    Raises:
        RequestError: as `read_settings`; or it does not say how many shards the run has.
    """
    frozen = read_settings(path).get("frozen")
    if not isinstance(frozen, dict) or not isinstance(frozen.get("shards"), dict) or "threads" not in frozen:
        raise RequestError(
            f"{path} is not the run.toml of a run: its [frozen] settings are missing or damaged"
        )
    return frozen


def settings_sha256(frozen: Mapping[str, Any]) -> str:
    """Hex SHA-256 of frozen settings, by which every part says which run it belongs to."""
    return hashlib.sha256(json.dumps(_given(frozen), sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Which items differ between two frozen settings, as `name: old -> new`."""
    old, new = _given(old), _given(new)
    found = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, now = old.get(key, "(none)"), new.get(key, "(none)")
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key}: {_short(before)} -> {_short(now)}")
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without None, with tuples as lists and paths as text, as TOML holds them."""
    return {key: _plain(value) for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _given(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
