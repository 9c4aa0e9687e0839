"""Everything that the values of a run depend on, as it stands in `[frozen]` of run.toml."""

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch

from leamfast.engine.batch_settings import BatchSettings
from leamfast.engine.plan import Shard, boundaries
from leamfast.faces.parse import parse_parser
from leamfast.models.compiled import CompiledModel
from leamfast.models.face_model import FaceModel

__all__ = ["code_sha256", "freeze", "package_versions"]

PACKAGES = ("leamfast", "leamfast_kernels")
VERSIONS = (
    "torch",
    "triton",
    "numpy",
    "opencv-python",
    "pillow",
    "pyfacer",
    "dlib-bin",
    "timm",
    "h5py",
    "opencv-python-headless",
    "dlib",
    "torchvision",
)


def freeze(
    settings: BatchSettings,
    models: Sequence[FaceModel],
    *,
    manifest_sha256: str,
    detector_sha256: str | None,
    parser_sha256: str | None,
    shards: Sequence[Shard],
    precision: str,
    device_name: str,
) -> dict[str, Any]:
    """The frozen settings of a run, as plain values.

    Args:
        settings: the resolved settings.
        models: the models, in the same order as `settings.models`.
        manifest_sha256: of paths, identities, labels and metadata.
        detector_sha256: of the detector's weights.
        parser_sha256: of the parser's.
        shards: the plan.
        precision: as resolved.
        device_name: what the device is called that models compute on.
    """
    return {
        "manifest": manifest_sha256,
        "shards": {
            "count": len(shards),
            "images": sum(shard.images for shard in shards),
            "boundaries": _hash(boundaries(shards)),
        },
        "align": settings.align,
        "faces": settings.faces,
        "detector": detector_sha256,
        "parser": settings.parser if parser_sha256 is None else parse_parser(settings.parser).name,
        "parser_weights": parser_sha256,
        "target": settings.target,
        "references": settings.maps.references,
        "max_references": settings.maps.max_references,
        "seed": settings.maps.seed,
        "batch_size": settings.maps.batch_size,
        "activation": settings.activation,
        "registration": settings.registration,
        "precision": precision,
        "backend": ",".join(sorted({m.backend for m in settings.models})),
        "threads": settings.threads,
        "device": device_name,
        "finding_device": _finding_device(settings),
        "models": {
            m.name: {
                "architecture": m.architecture,
                "weights": m.weights,
                **({"program": m.file} if isinstance(m, CompiledModel) else {}),
                "layers": list(s.layers),
                "backend": s.backend,
                "memory_layout": "contiguous" if s.backend == "eager" else "channels_last",
                "preprocessing": m.preprocessing.to_dict(),
            }
            for m, s in zip(models, settings.models, strict=True)
        },
        "versions": package_versions(),
        "code": code_sha256(),
    }


def _finding_device(settings: BatchSettings) -> str | None:
    """Where faces are found and parsed, in a run that does."""
    used = settings.detector is not None or parse_parser(settings.parser).of_faces
    return torch.device(settings.finding_device).type if used else None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def code_sha256() -> str:
    """Hash over the source files of the packages that compute."""
    total = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
