"""Several models in one pass: maps carried to other crops, and models that cannot be loaded."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leamfast import RequestError, load_model, open_results
from leamfast.datasets.decoding import read_image
from leamfast.engine import batch
from leamfast.engine.occlusion_maps import OcclusionMaps
from leamfast.engine.pair_maps import MapSource
from leamfast.faces.alignment import paper_transform, resize_crop, warp_image
from leamfast.models.demo import demo_network
from leamfast_kernels import support, upsample
from tests.engine.occluded_runs import occlude, replace_maps, some_faces, stored, tiny_run
from tests.engine.occlusion_networks import PREPROCESSING, SIZES, spec
from tests.engine.template_detector import template_finding

PAIRS = [("large", "large"), ("large", "one"), ("one", "large"), ("one", "one")]
CONTROLS = ("own", "random", "shifted", "population")


@pytest.fixture(scope="module")
def data(faces, tmp_path_factory) -> Path:
    return some_faces(faces, tmp_path_factory.mktemp("data") / "faces", (2, 2, 2))


@pytest.fixture(scope="module", params=["none, resize", "none, receptive", "arcface, resize"])
def run(request, data, tmp_path_factory) -> Path:
    """A run of two models of different input sizes whose maps are single blobs, occluded."""
    folder = tmp_path_factory.mktemp("sizes")
    align, registration = request.param.split(", ")
    options = {"align": align, "registration": registration}
    with pytest.MonkeyPatch.context() as patch:
        if align == "arcface":
            patch.setattr(batch, "load_finding", template_finding)
            (folder / "weights").write_text("none")
            options |= {"detector": f"retinaface={folder / 'weights'}", "parser": "none"}
        tiny_run(data, folder / "out", ("one", "large"), **options)
    replace_maps(folder / "out", blobs)
    occlude(folder / "out", controls=CONTROLS, fills=("black",))
    return folder / "out"


def blobs(tap: str, first: int, maps: np.ndarray) -> np.ndarray:
    """A wide bump at another place of each image, well inside of it, the same in all taps."""
    count, height, width = maps.shape
    y, x = np.mgrid[:height, :width] / height
    found = []
    for row in range(first, first + count):
        cy, cx = np.random.default_rng(row).uniform(0.4, 0.6, 2)
        found.append(np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.02))
    return np.stack(found).astype(np.float32)


def centroid(mask: np.ndarray) -> np.ndarray:
    """x and y of the middle of a mask."""
    return np.argwhere(mask).mean(axis=0)[::-1]


def from_crop_to_crop(results, row: int, source: str, evaluated: str) -> np.ndarray:
    """What takes pixels of one model's crop to those of another's, (3, 3)."""
    whole = [np.vstack([results.transforms(m, [row])[0], [0, 0, 1]]) for m in (source, evaluated)]
    return whole[1] @ np.linalg.inv(whole[0])


@pytest.mark.parametrize(("evaluated", "source"), PAIRS)
@pytest.mark.parametrize("name", ["conv1", "conv2", "fused"])
def test_supports_land_where_the_transforms_of_the_crops_put_them(run, evaluated, source, name):
    with open_results(run) as results:
        align = "arcface" if results.points() is not None else "none"
        sizes = [results.input_size(model) for model in (source, evaluated)]
        aligned = None if sizes[0] == sizes[1] else align
        found = []
        for size, how in zip(sizes, (None, aligned), strict=True):
            maps = OcclusionMaps(results, source, name, False, "cpu", how, size)
            own = maps.own(maps.entries(np.arange(6)))
            found.append(support(own, [5], size, maps.centres)[:, 0].numpy())
        for row in range(6):
            carry = from_crop_to_crop(results, row, source, evaluated)
            wanted = carry @ np.append(centroid(found[0][row]), 1)
            assert np.abs(centroid(found[1][row]) - wanted[:2]).max() < 0.5


@pytest.mark.parametrize(("evaluated", "source"), PAIRS)
def test_drops_are_those_of_the_carried_supports(run, data, evaluated, source):
    """The cells of the maps, carried by the transforms that the run stored, say which pixels are filled."""
    axes, arrays = stored(run, evaluated, source)
    size = SIZES[evaluated]
    model = load_model(spec(evaluated), preprocessing=PREPROCESSING[evaluated], trust_code=True)
    paths = sorted(data.glob("id*/*.png"))
    for row in (0, 3):
        with open_results(run) as results:
            carry = from_crop_to_crop(results, row, source, evaluated)
            values = torch.from_numpy(results.map(source, "conv2", [row]))
            cells = [centres.astype(float) for centres in results.centres(source, "conv2")]
            placed = evaluated != source or results.setting(source, "registration") == "receptive"
            crop, other = (crop_of(results, paths[n], evaluated, n) for n in (row, row ^ 1))
        y, x = (carry[a, a] * cells[k] + carry[a, 2] for k, a in ((0, 1), (1, 0)))
        centres = ((y[0], y[1] - y[0]), (x[0], x[1] - x[0])) if placed else None
        order = np.argsort(-upsample(values, size, centres).numpy().ravel(), kind="stable")
        for p, percent in enumerate(axes.percents):
            mask = np.zeros(size * size, bool)
            mask[order[: round(percent / 100 * size * size)]] = True
            changed = crop * ~mask.reshape(size, size, 1)
            units = model.embed(model.preprocess(np.stack([crop, changed, other]))).double()
            units = units / units.norm(dim=1, keepdim=True)
            wanted = float((units[0] - units[1]) @ units[2])
            assert arrays.drop[row, 1, p, 0, 0, 0] == pytest.approx(wanted, abs=1e-5)
            assert arrays.support_size[row, 1, p] == mask.sum()


def crop_of(results, path: Path, model: str, row: int) -> np.ndarray:
    pixels = read_image(path).pixels
    if results.points() is None:
        return resize_crop(pixels, SIZES[model])[0]
    return warp_image(pixels, results.transforms(model, [row])[0], SIZES[model])


def test_the_matrix_has_every_source_and_every_evaluated_model(run):
    with open_results(run) as results:
        assert results.occluded == tuple(PAIRS)
    drops = {}
    for evaluated, source in PAIRS:
        axes, arrays = stored(run, evaluated, source)
        assert axes.controls == CONTROLS
        assert arrays.drop.shape == (6, 3, 2, 4, 1, 2)
        assert np.isfinite(arrays.drop).all()
        assert (arrays.references == 1).all()
        # Pixels drawn at random are the same whatever map they stand beside.
        random = arrays.drop[:, :, :, 1]
        assert (random == random[:, :1]).all()
        drops[evaluated, source] = arrays.drop
    for evaluated in ("one", "large"):
        np.testing.assert_array_equal(
            drops[evaluated, "one"][:, :, :, 1], drops[evaluated, "large"][:, :, :, 1]
        )


def test_the_paper_s_crops_of_two_sizes_have_the_same_edges(run):
    """No landmarks here: the carried cells against the transforms that faces would be given."""
    angle = np.linspace(0, 2 * np.pi, 68)
    landmarks = landmarks_of_a_face(angle)
    small, big = (np.vstack([paper_transform(landmarks, size), [0, 0, 1]]) for size in (32, 80))
    carry = big @ np.linalg.inv(small)
    with open_results(run) as results:
        cells = results.centres("one", "conv1")[0].astype(float)
        (offset, step), _ = MapSource(results, "one", "conv1", "row", "cpu", "paper", 80).centres
    np.testing.assert_allclose(
        carry[1, 1] * cells + carry[1, 2], offset + step * np.arange(len(cells)), atol=1e-4
    )


def landmarks_of_a_face(angle: np.ndarray) -> np.ndarray:
    """68 points, symmetric about a vertical line, the eyes above the chin."""
    points = np.zeros((68, 2))
    jaw = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([100 + 50 * np.cos(jaw), 100 + 60 * np.sin(jaw)], axis=1)
    points[17:27, 0], points[17:27, 1] = np.linspace(65, 135, 10), 75
    points[27:31, 0], points[27:31, 1] = 100, np.linspace(90, 110, 4)
    points[31:36, 0], points[31:36, 1] = np.linspace(90, 110, 5), 115
    for start, x in ((36, 80), (42, 120)):
        turn = np.linspace(np.pi, -np.pi, 6, endpoint=False)
        points[start : start + 6] = np.stack([x + 8 * np.cos(turn), 88 - 3 * np.sin(turn)], axis=1)
    for start, count in ((48, 12), (60, 8)):
        turn = np.linspace(np.pi, -np.pi, count, endpoint=False)
        points[start : start + count] = np.stack([100 + 18 * np.cos(turn), 135 - 6 * np.sin(turn)], axis=1)
    return points


# -- models that cannot be loaded


@pytest.fixture(scope="module")
def mixed(data, tmp_path_factory) -> Path:
    """A run of the demo model from a file of weights and a tiny network from code; not to be changed."""
    folder = tmp_path_factory.mktemp("mixed")
    save_weights(folder / "demo.safetensors", 5)
    tiny_run(
        data, folder / "out", ("one",), layers=("one:conv1", "named:layer3.0.conv1"), limit_identities=2,
        more=(f"named:=demo={folder / 'demo.safetensors'}",),
    )  # fmt: skip
    return folder


def save_weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file({name: t for name, t in demo_network().state_dict().items()}, path)


@pytest.fixture
def copied(mixed, tmp_path) -> Path:
    shutil.copytree(mixed / "out", tmp_path / "out")
    return tmp_path / "out"


FEW = {"controls": ("random",), "percents": (20.0,), "seeds": 1}


def test_a_model_whose_weights_are_gone_is_left_out(mixed, copied, monkeypatch):
    moved = mixed / "moved.safetensors"
    (mixed / "demo.safetensors").rename(moved)
    try:
        notes: list[str] = []
        report = occlude(copied, note=notes.append, **FEW)
        assert report.evaluated == ("one",)
        assert report.sources == ("named", "one")
        assert list(report.without) == ["named"]
        assert "demo.safetensors" in report.without["named"]
        assert any("named embeds no occluded images" in text for text in notes)
        with open_results(copied) as results:
            assert results.occluded == (("one", "named"), ("one", "one"))
        assert np.isfinite(stored(copied, "one", "named")[1].drop).all()
        # Told where it lies now, it takes part.
        again = occlude(copied, model=(f"named:=demo={moved}",), overwrite=True, **FEW)
        assert (again.evaluated, again.without) == (("named", "one"), {})
    finally:
        moved.rename(mixed / "demo.safetensors")


def test_a_model_with_other_weights_is_left_out(mixed, copied, tmp_path):
    save_weights(tmp_path / "other.safetensors", 6)
    report = occlude(copied, model=(f"named:=demo={tmp_path / 'other.safetensors'}",), **FEW)
    assert report.evaluated == ("one",)
    assert "weights are not those of the run" in report.without["named"]


def test_code_that_is_not_trusted_is_left_out(copied):
    report = occlude(copied, trust_code=False, **FEW)
    assert report.evaluated == ("named",)
    assert "--trust-code" in report.without["one"]
    with open_results(copied) as results:
        assert results.occluded == (("named", "named"), ("named", "one"))


def test_no_model_at_all_is_an_error(mixed, copied, tmp_path):
    with pytest.raises(RequestError, match=r"no model of .* can be loaded .*--trust-code.*--model SPEC"):
        occlude(copied, trust_code=False, evaluated=("one",), **FEW)
    assert not (copied / "occlusion").exists()


def test_only_the_models_that_were_asked_for_take_part(copied):
    report = occlude(copied, evaluated=("one",), sources=("named",), **FEW)
    assert (report.sources, report.evaluated, report.without) == (("named",), ("one",), {})
    with open_results(copied) as results:
        assert results.occluded == (("one", "named"),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"evaluated": ("three",)}, r"--evaluated must name models of the run \(named, one\), got 'three'"),
        ({"sources": ("three",)}, r"--sources must name models of the run \(named, one\), got 'three'"),
        ({"model": ("three:=demo",)}, r"--model must name models of the run \(named, one\), got 'three'"),
        ({"backend": "fast"}, "--backend must be one of"),
    ],
)
def test_models_that_cannot_be_asked_for(copied, options, words):
    with pytest.raises(RequestError, match=words):
        occlude(copied, **{**FEW, **options})
