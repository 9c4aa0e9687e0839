"""What a model expects of its input: size, channel order, mean and standard deviation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leamfast.errors import RequestError
from leamfast.models.devices import upload

__all__ = ["Preprocessing"]

FIELDS = ("size", "channels", "mean", "std")


@dataclass(frozen=True)
class Preprocessing:
    """x -> (x - mean) / std per channel, x the raw pixel value 0..255 of an RGB image.

    Attributes:
        size: side of the input in pixels.
        channels: `rgb` or `bgr`, the order in which the network takes them.
        mean, std: three numbers each on the scale 0..255, in the network's channel order.
    """

    size: int
    channels: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """From `dict(size=112, channels="rgb", mean=(...), std=(...))`.

        Mean and std are read on the scale 0..255 when any of them exceeds 1, else on the scale 0..1
        (torchvision's habit), and kept on the scale 0..255.

        Raises:
            RequestError: a field is missing, unknown, or out of range.
        """
        missing = [field for field in FIELDS if field not in values]
        unknown = [field for field in values if field not in FIELDS]
        if missing or unknown:
            raise RequestError(
                f"preprocessing must give exactly {', '.join(FIELDS)}, got {sorted(values)}: "
                + (f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown")
            )
        size, channels = values["size"], str(values["channels"]).lower()
        if not isinstance(size, int) or size < 8:
            raise RequestError(
                f"preprocessing.size must be a whole number of pixels of at least 8, got {size!r}"
            )
        if channels not in ("rgb", "bgr"):
            raise RequestError(f"preprocessing.channels must be rgb or bgr, got {values['channels']!r}")
        mean, std = _three("mean", values["mean"]), _three("std", values["std"])
        if min(std) <= 0:
            raise RequestError(f"preprocessing.std must be positive, got {std}")
        scale = 1.0 if max(*mean, *std) > 1 else 255.0
        return cls(size, channels, _scaled(mean, scale), _scaled(std, scale))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_mapping` takes them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def __call__(self, images: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
        """Crops to network input.

        Args:
            images: RGB crops, uint8, shape (N, size, size, 3).
            device: where the result lies (default: where `images` lies).

        Returns:
            float32, shape (N, 3, size, size).

        Raises:
            RequestError: another dtype or shape.
        """
        x = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
        if x.dtype != torch.uint8 or x.ndim != 4 or tuple(x.shape[1:]) != (self.size, self.size, 3):
            raise RequestError(
                f"images must be uint8 of shape (N, {self.size}, {self.size}, 3), "
                f"got {x.dtype} {tuple(x.shape)}"
            )
        x = upload(x, device or x.device).permute(0, 3, 1, 2).float()
        if self.channels == "bgr":
            x = x.flip(1)
        mean, std = (upload(torch.tensor(v), x.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((x - mean) / std).contiguous()


def _three(name: str, values: Any) -> tuple[float, float, float]:
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError) as exc:
        raise RequestError(f"preprocessing.{name} must be three numbers, got {values!r}") from exc
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise RequestError(f"preprocessing.{name} must be three finite numbers, got {values!r}")
    return numbers


def _scaled(values: tuple[float, float, float], scale: float) -> tuple[float, float, float]:
    a, b, c = (round(v * scale, 6) for v in values)
    return a, b, c
