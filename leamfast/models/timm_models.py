"""Networks of timm by name, with weights from local files: nothing is ever downloaded.

`timm:FOLDER` is a downloaded folder of the Hugging Face hub, with config.json and model.safetensors or
pytorch_model.bin. `timm:ARCH=FILE` takes a state dict, for a network changed as a config.json beside it says
where there is one; `timm:ARCH=random:SEED` is untrained.
"""

import inspect
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from leamfast.errors import RequestError, first_line
from leamfast.models.face_model import FaceModel
from leamfast.models.preprocessing import Preprocessing
from leamfast.models.weights import file_sha256, mismatch, read_state_dict
from leamfast.models.zoo import make, random_seed

__all__ = ["PUBLISHED", "PublishedModel", "TimmSpec", "is_timm", "load_timm"]

PREFIX = "timm:"
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ARCHITECTURE = re.compile(r"(\w+)=(.+)")
EMBEDDING = 512  # of a network that no weights speak for


@dataclass(frozen=True)
class PublishedModel:
    """A face model that is published as a folder for timm.

    Attributes:
        name: of the folder.
        architecture: as timm names it.
        taps: what `auto` chooses, stored because importing timm takes seconds.
    """

    name: str
    architecture: str
    taps: tuple[str, ...]


VIT = ("patch_embed.proj", *(f"blocks.{i}.norm1" for i in (1, 2, 4, 5, 7, 8, 10, 11)))
NANO = ("stem.0", "stages.0.blocks.1.mlp.fc1", "stages.1.blocks.1.mlp.fc1", "stages.2.blocks.1.conv_dw",
        "stages.2.blocks.2.mlp.fc2", "stages.2.blocks.4.mlp.fc1", "stages.2.blocks.6.mlp.fc1",
        "stages.3.blocks.0.conv_dw", "stages.3.blocks.1.mlp.fc2")  # fmt: skip
ATTO = ("stem.0", "stages.0.blocks.1.mlp.fc1", "stages.1.blocks.0.mlp.fc2", "stages.2.blocks.0.mlp.fc1",
        "stages.2.blocks.1.mlp.fc2", "stages.2.blocks.3.mlp.fc1", "stages.2.blocks.4.mlp.fc2",
        "stages.3.blocks.0.mlp.fc1", "stages.3.blocks.1.mlp.fc2")  # fmt: skip

# All take 112x112 RGB and stand at huggingface.co/gaunernst.
PUBLISHED = (
    PublishedModel("vit_tiny_patch8_112.arcface_ms1mv3", "vit_tiny_patch16_224", VIT),
    PublishedModel("vit_tiny_patch8_112.cosface_ms1mv3", "vit_tiny_patch16_224", VIT),
    PublishedModel("vit_tiny_patch8_112.adaface_ms1mv3", "vit_tiny_patch16_224", VIT),
    PublishedModel("vit_small_patch8_gap_112.cosface_ms1mv3", "vit_small_patch16_224", VIT),
    PublishedModel("convnext_nano.cosface_ms1mv3", "convnext_nano", NANO),
    PublishedModel("convnext_atto.cosface_ms1mv3", "convnext_atto", ATTO),
)


@dataclass(frozen=True)
class TimmSpec:
    """What a SPEC that begins with `timm:` names.

    Attributes:
        text: the SPEC itself.
        architecture: as timm names it; empty where a folder's configuration says it.
        source: a weights file, `random:SEED`, or a folder.
    """

    text: str
    architecture: str
    source: str

    @classmethod
    def parse(cls, text: str) -> "TimmSpec":
        """From `timm:ARCH=FILE`, `timm:ARCH=random:SEED` or `timm:FOLDER`."""
        rest = text.removeprefix(PREFIX)
        named = ARCHITECTURE.fullmatch(rest)
        return cls(text, named[1], named[2]) if named else cls(text, "", rest)

    @property
    def path(self) -> Path:
        """The weights file or the folder."""
        return Path(os.path.expanduser(self.source))

    @property
    def name(self) -> str:
        """The architecture, or the folder's name."""
        return self.architecture or self.path.resolve().name

    @property
    def config(self) -> Path | None:
        """The configuration that describes the network; None where there is none."""
        if not self.architecture:
            return self.path / CONFIG
        beside = self.path.with_name(CONFIG)
        return None if self.source.startswith("random:") or not beside.is_file() else beside


@dataclass(frozen=True)
class _Recipe:
    """How timm makes a network.

    Attributes:
        spec: what the user asked for, for errors.
        architecture: as timm names it.
        settings: timm's `pretrained_cfg`, which says the classes and the size of the input, or an overlay.
        args: further arguments of the architecture.
    """

    spec: str
    architecture: str
    settings: Mapping[str, Any]
    args: Mapping[str, Any]

    def __call__(self) -> nn.Module:
        timm = _timm()
        if not timm.is_model(self.architecture):
            near = get_close_matches(self.architecture, timm.list_models(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ", see timm.list_models()"
            raise RequestError(f"model {self.spec!r}: timm has no architecture {self.architecture!r}{hint}")
        try:
            return timm.create_model(self.architecture, pretrained=False, **self.settings, **self.args)
        except Exception as exc:  # timm raises whatever its networks do
            raise RequestError(
                f"model {self.spec!r} cannot be made by timm: {type(exc).__name__}: {first_line(exc)}"
            ) from exc

    @property
    def words(self) -> str:
        """The architecture and how it was changed."""
        return " ".join([PREFIX + self.architecture, *(f"{k}={v}" for k, v in sorted(self.args.items()))])


def is_timm(text: str) -> bool:
    """Whether a SPEC, its alias taken off, names a network of timm."""
    return text.startswith(PREFIX)


def load_timm(spec: TimmSpec, preprocessing: Preprocessing | None) -> FaceModel:
    """The network that a SPEC names, with its weights.

    Args:
        spec: which.
        preprocessing: of its input; None where a configuration says it.

    Raises:
        RequestError: a file is missing or does not fit, or timm knows no such network.
    """
    seed = random_seed(spec.source, spec.text) if spec.architecture else None
    if seed is not None:
        assert preprocessing is not None
        recipe = _plain(spec, preprocessing.size, EMBEDDING)
        return FaceModel(spec.name, recipe.words, make(recipe, seed=seed), preprocessing, spec.source)
    weights = spec.path if spec.architecture else _weights_in(spec)
    state = read_state_dict(weights)
    if spec.config is not None:
        recipe, preprocessing = _configured(spec, spec.config)
    else:
        assert preprocessing is not None
        recipe = _plain(spec, preprocessing.size, _classes(spec, state))
    problem = mismatch(make(recipe, "meta"), state)
    if problem is not None:
        hint = "" if spec.config else "; a config.json beside them may say how that was changed"
        raise RequestError(f"weights {weights} do not fit timm's {recipe.architecture}: {problem}{hint}")
    network = make(recipe)
    network.load_state_dict(state, strict=False)
    return FaceModel(spec.name, recipe.words, network, preprocessing, file_sha256(weights))


def _timm() -> ModuleType:
    """The package, imported at first use: it takes seconds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"timm\.")
        import timm
    return timm


def _plain(spec: TimmSpec, size: int, classes: int) -> _Recipe:
    """An architecture as it is, but for the size of its input and of its embedding."""
    overlay = {"input_size": (3, size, size), "num_classes": classes}
    return _Recipe(spec.text, spec.architecture, {"pretrained_cfg_overlay": overlay}, {})


def _classes(spec: TimmSpec, state: Mapping[str, Tensor]) -> int:
    """Outputs of the classifier in a state dict, which gives the embedding; 0 where it holds none."""
    settings = _timm().get_pretrained_cfg(spec.architecture)
    classifier = getattr(settings, "classifier", None)
    first = classifier[0] if isinstance(classifier, tuple | list) else classifier
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else weight.shape[0]


def _configured(spec: TimmSpec, path: Path) -> tuple[_Recipe, Preprocessing]:
    """The network and preprocessing that a config.json of the hub describes."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture, settings = str(config["architecture"]), dict(config["pretrained_cfg"])
        args = dict(config.get("model_args") or {})
        channels, height, width = settings["input_size"]
        preprocessing = Preprocessing.from_mapping(
            {"size": height, "channels": "rgb", "mean": settings["mean"], "std": settings["std"]}
        )
    except RequestError as exc:
        raise RequestError(f"{path}: {exc}") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise RequestError(
            f"{path} must be a configuration of timm, with architecture and a pretrained_cfg of input_size, "
            f"mean and std: {type(exc).__name__}: {first_line(exc)}"
        ) from exc
    if (channels, height) != (3, width):
        raise RequestError(f"{path}: input_size must be 3 channels of a square, got {settings['input_size']}")
    if spec.architecture not in ("", architecture):
        raise RequestError(f"model {spec.text!r}: {path} says architecture {architecture}: name that one")
    timm = _timm()
    # Arguments of create_model itself could load other files than the weights that were named.
    if taken := sorted(set(args) & set(inspect.signature(timm.create_model).parameters)):
        raise RequestError(f"{path}: model_args must be arguments of {architecture}, got {taken[0]}")
    if "num_classes" in config:
        settings["num_classes"] = config["num_classes"]
    known = {field.name for field in fields(timm.models.PretrainedCfg)}
    kept = {key: value for key, value in settings.items() if key in known}
    return _Recipe(spec.text, architecture, {"pretrained_cfg": kept}, args), preprocessing


def _weights_in(spec: TimmSpec) -> Path:
    """The weights file of a folder."""
    for name in WEIGHTS:
        if (spec.path / CONFIG).is_file() and (spec.path / name).is_file():
            return spec.path / name
    raise RequestError(
        f"model {spec.text!r} must be timm:ARCH=FILE, timm:ARCH=random:SEED, or timm:FOLDER with {CONFIG} "
        f"and {' or '.join(WEIGHTS)} in it"
    )
