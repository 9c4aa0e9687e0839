"""The planted models: which there are, where they lie, and what they are scored on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from leamfast.datasets.synthetic import FaceGenerator
from leamfast.errors import RequestError
from leamfast.models.demo import DEMO_SIZE
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model

__all__ = ["KINDS", "REGIONS", "SHIPPED", "PlantedModel", "find_models", "model_file"]

REGIONS = ("nose", "eyes", "brows", "lips", "all")
KINDS = ("plain", "free")
SHIPPED = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class PlantedModel:
    """A model that was trained on people who differ in one region only.

    Attributes:
        region: that region; `all`: every one.
        kind: plain, or free: all other regions drawn anew for every picture.
        seed: of its data and weights.
        weights: its file.
        header: what else the file says: its recipe, and how well it knew people it had not seen.
    """

    region: str
    kind: str
    seed: int
    weights: Path
    header: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.region}-{self.kind}-{self.seed}"

    def load(self, device: str = "cpu") -> FaceModel:
        """The model."""
        return load_model(f"{self.name}:=demo={self.weights}", device=device)

    def generator(self) -> FaceGenerator:
        """Renders people like those it was trained on."""
        plant = None if self.region == "all" else self.region
        return FaceGenerator(seed=self.seed, size=DEMO_SIZE, plant=plant, free=self.kind == "free")


def model_file(region: str, kind: str, seed: int) -> str:
    """Name of the weights file of a model."""
    return f"{region}-{kind}-{seed}.safetensors"


def find_models(folder: Path | None) -> tuple[PlantedModel, ...]:
    """The planted models of a folder, by region, kind and seed.

    Args:
        folder: where `leamfast_bench.truth.train` wrote them; None: those that ship.

    Raises:
        RequestError: there is none, or a file does not say what it was trained on.
    """
    found: list[PlantedModel] = sorted(
        _models(folder or SHIPPED), key=lambda m: (REGIONS.index(m.region), m.kind != "plain", m.seed)
    )
    if not any(model.region != "all" for model in found):
        raise RequestError(
            f"{folder} holds no planted model: train them with "
            f"`python -m leamfast_bench.truth.train --out {folder}`"
        )
    names = [model.name for model in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RequestError(f"{folder} holds more than one file of {twice}: remove the others")
    return tuple(found)


def _models(folder: Path) -> Iterator[PlantedModel]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
        except (SafetensorError, OSError) as exc:
            raise RequestError(f"{path} is not readable as safetensors: {exc}") from exc
        if lacking := [name for name in ("region", "kind", "seed") if name not in said]:
            raise RequestError(f"{path} does not say what it was trained on: its header lacks {lacking[0]}")
        if not said["seed"].isdecimal():
            raise RequestError(f"{path} says seed {said['seed']!r}, which is no whole number")
        header = tuple(sorted(said.items()))
        model = PlantedModel(said["region"], said["kind"], int(said["seed"]), path, header)
        if model.region not in REGIONS or model.kind not in KINDS:
            raise RequestError(
                f"{path} says region {model.region!r} and kind {model.kind!r}, which there are not"
            )
        yield model
