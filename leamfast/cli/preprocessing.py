"""The options --input-size, --mean, --std and --channels, for models that bring no preprocessing."""

from typing import Any

from leamfast.errors import RequestError

__all__ = ["given_preprocessing"]


def given_preprocessing(
    size: int | None, mean: str | None, std: str | None, channels: str | None
) -> dict[str, Any] | None:
    """What was given, as `Preprocessing.from_mapping` takes it; None where nothing was."""
    values: dict[str, Any] = {"size": size, "channels": channels}
    values |= {"mean": _three("mean", mean) if mean else None, "std": _three("std", std) if std else None}
    return {field: value for field, value in values.items() if value} or None


def _three(name: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as exc:
        raise RequestError(f"--{name} must be three numbers separated by commas, got {text!r}") from exc
