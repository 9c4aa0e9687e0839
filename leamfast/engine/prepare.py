"""From a request to what a run computes with: manifest, models, settings, programs and shards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leamfast.datasets.formats import read_manifest
from leamfast.datasets.limits import limited
from leamfast.datasets.manifest import Manifest
from leamfast.engine.batch import BatchFunction
from leamfast.engine.batch_settings import BatchSettings, ModelSettings
from leamfast.engine.frozen import freeze
from leamfast.engine.maps import MapSettings
from leamfast.engine.plan import Shard, plan_shards
from leamfast.engine.request import BatchRequest, check_request
from leamfast.engine.site import Site
from leamfast.errors import RequestError
from leamfast.faces.detection import parse_detector
from leamfast.faces.parse import parse_parser
from leamfast.leam.taps import select_taps
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import brings_preprocessing, load_model, located, spec_name
from leamfast.models.weights import file_sha256
from leamfast.store.run_folder import RunFolder

__all__ = ["Prepared", "check_folder", "prepare", "read_data", "warn_of_taps"]


@dataclass(frozen=True)
class Prepared:
    """What a run computes with.

    Attributes:
        manifest: the images, as limited.
        architectures: of the models by name.
        settings: as resolved.
        function: computes shards.
        warnings: model -> tap -> what is known against it.
        plan: the shards.
        frozen: everything that the values depend on, as it stands in run.toml.
    """

    manifest: Manifest
    architectures: Mapping[str, str]
    settings: BatchSettings
    function: BatchFunction
    warnings: Mapping[str, Mapping[str, Sequence[str]]]
    plan: tuple[Shard, ...]
    frozen: dict[str, Any]


def check_folder(request: BatchRequest) -> RunFolder:
    """The result folder of a request that makes sense.

    Raises:
        RequestError: an option is wrong, or the folder holds something already and --resume was not given.
    """
    check_request(request)
    folder = RunFolder(request.out)
    if folder.settings.is_file() and not request.resume:
        raise RequestError(
            f"result folder {request.out} holds a run already: go on with --resume or choose another --out"
        )
    if request.out.is_dir() and any(request.out.iterdir()) and not request.resume:
        raise RequestError(f"result folder {request.out} is not empty: choose another --out")
    return folder


def read_data(request: BatchRequest, note: Callable[[str], None]) -> Manifest:
    """The data set of a request, as limited.

    Raises:
        RequestError: it cannot be read.
    """
    manifest = limited(
        read_manifest(request.data, request.format),
        identities=request.limit_identities,
        images_per_identity=request.images_per_identity,
        min_images=request.min_images,
        seed=request.seed,
    )
    if manifest.ignored:
        note(f"{manifest.ignored} files without an image's suffix are ignored")
    for reason, number in manifest.left_out.items():
        note(f"left out: {number} x {reason}")
    return manifest


def prepare(
    request: BatchRequest,
    manifest: Manifest,
    site: Site,
    before: dict[str, Any] | None,
    note: Callable[[str], None],
) -> Prepared:
    """Load the models and build their programs; nothing is written but caches.

    Args:
        request: what is asked.
        manifest: the data set.
        site: where it is computed.
        before: frozen settings of the run that goes on, or None.
        note: told of what the user should know.

    Raises:
        RequestError: the request is wrong.
    """
    if request.align == "paper":
        note(
            "models that were trained on arcface crops see more of the picture with --align paper and tell "
            "people apart less well: look at cosines between different people before you read maps"
        )
    models = _load_models(request)
    settings = _settings(request, manifest, models, before, site)
    resolved = site.resolve(settings, models, len(manifest.entries), before, note)
    settings = resolved.settings
    shard_images = request.shard_images or _shard_images(len(manifest.entries))
    plan = plan_shards(manifest, shard_images, request.split_images or max(1024, 2 * shard_images))
    frozen = freeze(
        settings,
        models,
        manifest_sha256=manifest.sha256(),
        detector_sha256=_detector_sha256(settings.detector),
        parser_sha256=_parser_sha256(settings.parser),
        shards=plan,
        precision=request.precision,
        device_name=site.device_name,
    )
    architectures = {model.name: model.architecture for model in models}
    return Prepared(manifest, architectures, settings, resolved.function, resolved.warnings, plan, frozen)


def warn_of_taps(prepared: Prepared, note: Callable[[str], None]) -> None:
    """Say before the run which taps are known to mislead, one line a reason."""
    for name, found in prepared.warnings.items():
        reasons: dict[str, list[str]] = {}
        for tap, texts in found.items():
            for text in texts:
                reasons.setdefault(text, []).append(tap)
        for text, taps in reasons.items():
            note(f"{name} {', '.join(taps)}: {text}")


def _load_models(request: BatchRequest) -> list[FaceModel]:
    models = []
    given = request.preprocessing or {}
    if "*" in given and all(map(brings_preprocessing, request.model)):
        raise RequestError(
            "--input-size, --mean, --std and --channels must not be given: "
            "every model of this run brings its own"
        )
    for spec in request.model:
        brought = None if brings_preprocessing(spec) else given.get(spec_name(spec), given.get("*"))
        models.append(
            load_model(spec, preprocessing=brought, trust_code=request.trust_code, device=request.device)
        )
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(
                f"model name {name!r} is used twice: rename one, for example {name}2:={request.model[-1]}"
            )
    if not models:
        raise RequestError("model must be given at least once, for example --model demo")
    return models


def _settings(
    request: BatchRequest,
    manifest: Manifest,
    models: Sequence[FaceModel],
    before: dict[str, Any] | None,
    site: Site,
) -> BatchSettings:
    layers = _layers_by_model(request.layers, [model.name for model in models])
    threads = request.threads
    if threads is None:  # a resumed run keeps the number of threads, whatever the number of workers is now
        threads = before["threads"] if before else site.threads
    return BatchSettings(
        root=manifest.root.resolve(),
        models=tuple(
            ModelSettings(
                located(spec),
                model.name,
                tuple(tap.name for tap in select_taps(model, layers[model.name])),
                model.preprocessing.size,
                request.backend,
                None if brings_preprocessing(spec) else model.preprocessing.to_dict(),
            )
            for spec, model in zip(request.model, models, strict=True)
        ),
        detector=None if request.align == "none" or request.detector is None else located(request.detector),
        align=request.align,
        faces=request.faces,
        parser=_parser(request.parser, manifest),
        columns=manifest.columns,
        person_columns=_person_columns(manifest),
        target=request.target,
        activation=request.activation,
        registration=request.registration,
        precision=request.precision,
        maps=MapSettings(request.references, request.max_references, request.seed, request.batch_size),
        threads=threads,
        device=site.device,
        finding_device=site.finding_device,
        trust_code=request.trust_code,
    )


def _detector_sha256(spec: str | None) -> str | None:
    return None if spec is None else file_sha256(parse_detector(spec).weights)


def _parser(parser: str, manifest: Manifest) -> str:
    """The parser as asked; `none` where the data set brings none of the masks that are asked for."""
    if parser == "labels" and all(entry.label is None for entry in manifest.entries):
        return "none"
    spec = parse_parser(parser)
    return parser if spec.path is None else f"{spec.name}={spec.path.resolve()}"


def _parser_sha256(parser: str) -> str | None:
    spec = parse_parser(parser)
    return file_sha256(spec.path) if spec.of_faces and spec.path is not None else None


def _layers_by_model(layers: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`auto`, `all` or `tap,tap` for every model; `NAME:tap,tap` for one of them."""
    everyone, own = "auto", {}
    for item in layers:
        name, colon, taps = item.partition(":")
        if not colon:
            everyone = item
        elif name in names:
            own[name] = taps
        else:
            raise RequestError(
                f"layers {item!r} names a model that is not in this run: {', '.join(names)} are"
            )
    return {name: own.get(name, everyone) for name in names}


def _person_columns(manifest: Manifest) -> tuple[str, ...]:
    """The metadata columns that say the same of all images of each identity."""
    constant = []
    for column in manifest.columns:
        values: dict[str, str] = {}
        if all(
            values.setdefault(e.identity, e.metadata[column]) == e.metadata[column] for e in manifest.entries
        ):
            constant.append(column)
    return tuple(c for c in constant if c not in ("name", "images"))


def _shard_images(images: int) -> int:
    """Shards small enough to lose little with one, large enough that their number stays manageable."""
    return min(1024, max(64, images // 500))
