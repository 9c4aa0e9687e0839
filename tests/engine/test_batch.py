"""The main pass on synthetic faces: stored values against direct computation, and what can be wrong."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from leamfast import LEAM, RequestError, load_model, open_results
from leamfast.datasets.decoding import decode_label, read_image
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.leam.fused import fuse, normalise
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.verify import verify
from leamfast_kernels import region_share

MODEL = "demo=random:0"
TAP = "layer2.0.conv1"


def request(data: Path, out: Path, **options) -> BatchRequest:
    base = BatchRequest(
        data=data, out=out, model=(MODEL,), layers=(f"conv1,{TAP}",), align="none", shard_images=12,
        batch_size=6, threads=1,
    )  # fmt: skip
    return replace(base, **options)


def go(data: Path, out: Path, **options):
    return run_batch(request(data, out, **options), note=lambda text: None)


def failures(out: Path) -> list[list[str]]:
    with (out / "failures.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def arrays(out: Path) -> dict[str, np.ndarray]:
    with h5py.File(out / "index.h5") as index:
        found: dict[str, np.ndarray] = {}
        index.visititems(lambda n, d: found.update({n: d[...]}) if isinstance(d, h5py.Dataset) else None)
    return found


def assert_same(first: Path, second: Path) -> None:
    """Equal to the bit, array by array."""
    one, two = arrays(first), arrays(second)
    assert set(one) == set(two)
    for name, values in one.items():
        assert values.dtype == two[name].dtype
        same = np.array_equal(values, two[name], equal_nan=values.dtype.kind == "f")
        assert same, name


@pytest.fixture(scope="module")
def direct(faces):
    """Embeddings and crops of all faces, in manifest order, computed without the engine."""
    torch.set_num_threads(1)
    model = load_model(MODEL)
    paths = sorted(faces.glob("id*/*.png"))
    crops = np.stack([read_image(path).pixels for path in paths])
    images = model.preprocess(crops)
    people = np.array([int(path.parent.name[2:]) for path in paths])
    return model, images, model.embed(images), people, paths


def test_mean_references_agree_with_leam_itself(faces, tmp_path, direct):
    model, images, embeddings, people, paths = direct
    report = go(faces, tmp_path / "out")
    assert (report.images, report.identities, report.failures, report.shards) == (48, 12, 0, 4)
    units = torch.nn.functional.normalize(embeddings)
    means = torch.stack(
        [units[[j for j in range(48) if people[j] == people[i] and j != i]].mean(0) for i in range(48)]
    )
    wanted = LEAM(model, ["conv1", TAP])(images, means)
    with open_results(tmp_path / "out") as results:
        assert results.text("image/path").tolist() == [p.relative_to(faces).as_posix() for p in paths]
        assert results.identities.tolist() == people.tolist()
        assert results.text("identity/name").tolist() == [f"id{i:04d}" for i in range(12)]
        np.testing.assert_allclose(results.embedding("demo"), embeddings, rtol=1e-4, atol=1e-5)
        for tap in results.taps("demo"):
            maps = wanted.maps[tap].numpy()
            error = np.abs(results.raw_map("demo", tap) - maps).max(axis=(1, 2)) / maps.max(axis=(1, 2))
            assert error.max() < 5e-3  # float16 rounding, and PReLU kinks in other batches
            assert (results.map("demo", tap).max(axis=(1, 2)) == 1).all()


def test_region_shares_are_those_of_the_stored_maps(faces, tmp_path, direct):
    go(faces, tmp_path / "out")
    paths = direct[4]
    labels = torch.from_numpy(
        np.stack([decode_label(faces / ".labels" / p.relative_to(faces)) for p in paths])
    )
    with open_results(tmp_path / "out") as results:
        stored = {tap: torch.from_numpy(results.map("demo", tap)) for tap in results.taps("demo")}
        maps = {**stored, "fused": fuse(stored.values(), 112)}
        for name, values in maps.items():
            shares, sizes = region_share(values, labels, THRESHOLDS, 112)
            group = (
                results.file["model/demo"]["fused"]
                if name == "fused"
                else results.file["model/demo/layer"][name]
            )
            np.testing.assert_array_equal(group["support_size"][...], sizes.numpy())
            np.testing.assert_allclose(results.region_share("demo", name), shares.numpy(), atol=1e-6)
        means = results.file[f"model/demo/layer/{TAP}/identity_map"][...]
        np.testing.assert_allclose(means[3], normalise(stored[TAP][12:16]).mean(0), rtol=1e-5, atol=1e-9)
        np.testing.assert_array_equal(results.file["crop/112/label"][...], labels.numpy())


def test_registration_moves_shares_and_scales_but_not_the_maps(faces, tmp_path, direct):
    options = {"layers": ("conv1,layer4.0.conv2",), "parser": "labels"}
    go(faces, tmp_path / "plain", **options)
    go(faces, tmp_path / "placed", **options, registration="receptive")
    centres = LEAM(direct[0], "conv1,layer4.0.conv2", registration="receptive").centres
    assert centres == {"conv1": ((0, 2), (0, 2)), "layer4.0.conv2": ((0, 32), (0, 32))}
    with open_results(tmp_path / "plain") as plain, open_results(tmp_path / "placed") as placed:
        labels = torch.from_numpy(plain.file["crop/112/label"][...])
        assert placed.file["model/demo"].attrs["registration"] == "receptive"
        for tap, place in centres.items():
            maps = plain.map("demo", tap)
            np.testing.assert_array_equal(maps, placed.map("demo", tap))
            shares, _ = region_share(torch.from_numpy(maps), labels, THRESHOLDS, 112, place)
            np.testing.assert_allclose(placed.region_share("demo", tap), shares.numpy(), atol=1e-6)
            assert not np.allclose(plain.region_share("demo", tap), shares.numpy(), atol=1e-3)
            cells = np.arange(maps.shape[1])
            layer = placed.file["model/demo/layer"][tap]
            np.testing.assert_allclose(layer["h"][...], place[0][0] + place[0][1] * cells)


@pytest.mark.parametrize("policy", ["each", "mean-map"])
def test_one_map_a_reference(faces, tmp_path, direct, policy):
    model, images, embeddings, people, _ = direct
    go(faces, tmp_path / "out", references=policy, max_references=2, seed=5)
    with h5py.File(tmp_path / "out" / "index.h5") as index:
        layer = index["model/demo/layer"][TAP]
        assert ("each" in layer) == (policy == "each")
        means = layer["map"][...].astype(np.float32)
        if policy == "mean-map":
            return
        rows, references = layer["each/image_row"][...], layer["each/reference_row"][...]
        assert np.bincount(rows, minlength=48).tolist() == [2] * 48
        assert (people[rows] == people[references]).all()
        assert (rows != references).all()
        wanted = LEAM(model, [TAP])(images[rows], embeddings[references]).maps[TAP]
        raw = layer["each/map"][...].astype(np.float32) * layer["each/scale"][...][:, None, None]
        assert (np.abs(raw - wanted.numpy()).max(axis=(1, 2)) / wanted.amax((1, 2)).numpy()).max() < 5e-3
        averaged = normalise(wanted).view(48, 2, *wanted.shape[1:]).mean(1)
        np.testing.assert_allclose(means, averaged / averaged.amax((1, 2), keepdim=True), atol=5e-3)
    other = tmp_path / "mean-map"
    go(faces, other, references="mean-map", max_references=2, seed=5)
    with h5py.File(other / "index.h5") as index:
        np.testing.assert_array_equal(index["model/demo/layer"][TAP]["map"][...].astype(np.float32), means)


def test_an_identity_larger_than_a_batch_gets_the_same_maps(faces, tmp_path):
    go(faces, tmp_path / "packed", batch_size=16)
    go(faces, tmp_path / "split", batch_size=3)
    with open_results(tmp_path / "packed") as one, open_results(tmp_path / "split") as two:
        np.testing.assert_allclose(one.embedding("demo"), two.embedding("demo"), rtol=1e-4, atol=1e-5)
        assert np.abs(one.map("demo", TAP) - two.map("demo", TAP)).max() < 1e-2


def test_workers_give_the_same_bits(faces, finished_run, tmp_path):
    go(faces, tmp_path / "out", layers=("auto",), batch_size=5, workers=2)
    assert_same(finished_run, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_two_models_with_layers_of_their_own(faces, tmp_path):
    go(faces, tmp_path / "out", model=(MODEL, "second:=demo=random:1"), layers=("conv1", "second:layer2.0"))
    with open_results(tmp_path / "out") as results:
        assert results.models == ("demo", "second")
        assert (results.taps("demo"), results.taps("second")) == (("conv1",), ("layer2.0",))
        assert not np.allclose(results.embedding("demo"), results.embedding("second"))


def test_every_kind_of_bad_image_is_named_and_nothing_else_is_lost(faces, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(faces, data, ignore=shutil.ignore_patterns("manifest.csv", "id000[4-9]", "id001*"))
    good = (data / "id0000/000.png").read_bytes()
    (data / "id0000/empty.png").touch()
    (data / "id0000/cut.png").write_bytes(good[: len(good) // 2])
    (data / "id0000/text.jpg").write_text("hello")
    (data / "id0000/copy.png").write_bytes(good)
    Image.new("RGB", (112, 100)).save(data / "id0000/oblong.png")
    (data / "id0000/notes.txt").write_text("ignored")
    for kept in ("001", "002", "003"):
        (data / f"id0001/{kept}.png").unlink()
    (data / "id0009").mkdir()
    (data / "id0009/broken.png").write_bytes(b"\x89PNG\r\n")
    notes: list[str] = []
    report = run_batch(request(data, tmp_path / "out"), note=notes.append)
    rows = {path: (identity, stage, reason) for path, identity, stage, reason in failures(tmp_path / "out")}
    assert {path: stage for path, (_, stage, _) in rows.items()} == {
        "id0000/empty.png": "decode",
        "id0000/cut.png": "decode",
        "id0000/text.jpg": "decode",
        "id0000/copy.png": "duplicate",
        "id0000/oblong.png": "align",
        "id0001/000.png": "reference",
        "id0009/broken.png": "decode",
    }
    assert "same picture as id0000/000.png" in rows["id0000/copy.png"][2]
    assert "only usable image" in rows["id0001/000.png"][2]
    assert notes == [
        "1 files without an image's suffix are ignored",
        "demo: backend eager, as compiling does not pay for 19 images",
    ]
    assert (report.images, report.identities, report.failures) == (4 + 1 + 4 + 4, 5, 7)
    with open_results(tmp_path / "out") as results:
        alone = results.text("image/path").tolist().index("id0001/000.png")
        assert np.isfinite(results.embedding("demo")).all()
        missing = np.isnan(results.map("demo", TAP)).all(axis=(1, 2))
        assert missing.nonzero()[0].tolist() == [alone]
        assert results.file["model/demo/layer"][TAP]["support_size"][alone].tolist() == [-1] * 6
        assert results.file["identity/images"][...].tolist() == [4, 1, 4, 4, 0]
        assert np.isnan(results.file["model/demo/layer"][TAP]["identity_map"][[1, 4]]).all()
    assert verify(tmp_path / "out") == []


def test_a_run_in_which_no_image_can_be_used(tmp_path):
    (tmp_path / "data" / "p").mkdir(parents=True)
    (tmp_path / "data" / "p" / "a.png").touch()
    report = go(tmp_path / "data", tmp_path / "out")
    assert (report.images, report.failures) == (0, 1)
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize("parser", ["labels", "none"])
@pytest.mark.parametrize("policy", ["mean", "each"])
def test_a_shard_without_a_usable_image_between_others(faces, tmp_path, parser, policy):
    data = Path(shutil.copytree(faces, tmp_path / "data"))
    for person in ("id0003", "id0004", "id0005"):  # the second of four shards
        for path in (data / person).iterdir():
            path.write_bytes(b"")
    report = go(data, tmp_path / "out", parser=parser, references=policy)
    assert (report.images, report.identities, report.failures) == (36, 12, 12)
    assert verify(tmp_path / "out") == []
    with open_results(tmp_path / "out") as results:
        assert sorted(set(results.identities.tolist())) == [0, 1, 2, 6, 7, 8, 9, 10, 11]
        assert np.isfinite(results.map("demo", TAP)).all()


def test_a_reference_that_equals_its_image_without_being_the_same_file(faces, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(faces / "id0000", data / "p")
    for extra in ("002", "003"):
        (data / f"p/{extra}.png").unlink()
    pixels = np.array(Image.open(data / "p/000.png"))
    pixels[0, 0, 0] ^= 1  # another picture, nearly the same embedding
    Image.fromarray(pixels).save(data / "p/001.png")
    go(data, tmp_path / "out")
    *equal, near = failures(tmp_path / "out")
    assert [(row[2], "equals the image" in row[3]) for row in equal] == [("reference", True)] * 2
    assert near[:3] == ["p/001.png", "p", "pair"]
    assert near[3] == "near-duplicate of p/000.png for demo (cosine 1.0000): left out of pairs"
    with open_results(tmp_path / "out") as results:
        assert np.isnan(results.map("demo", TAP)).all()


def test_the_same_picture_in_another_file_is_a_duplicate(faces, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(faces / "id0000", data / "p")
    Image.open(data / "p/000.png").save(data / "p/copy.png", compress_level=1)
    assert (data / "p/copy.png").read_bytes() != (data / "p/000.png").read_bytes()
    assert go(data, tmp_path / "out").images == 4
    assert failures(tmp_path / "out") == [["p/copy.png", "p", "duplicate", "same picture as p/000.png"]]


def test_a_picture_of_two_people_is_counted(faces, tmp_path):
    data = tmp_path / "data"
    for person in ("id0000", "id0001"):
        shutil.copytree(faces / person, data / person)
    assert go(data, tmp_path / "one").shared_pictures == 0
    shutil.copy(data / "id0000/000.png", data / "id0001/again.png")
    assert go(data, tmp_path / "two").shared_pictures == 1


def test_an_embedding_that_is_not_finite_costs_only_its_own_image(faces, tmp_path, monkeypatch):
    (tmp_path / "contrast.py").write_text(
        "import torch\nfrom leamfast.models.demo import demo_network\n"
        "class Contrast(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(0)\n"
        "        self.net = demo_network()\n"
        "    def forward(self, x):\n"
        "        return self.net(x) / (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None] ** 0 * "
        "torch.where(x.std((1, 2, 3)) > 0, 1.0, torch.nan)[:, None]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = Path(shutil.copytree(faces, tmp_path / "data"))
    Image.new("RGB", (112, 112)).save(data / "id0001/001.png")
    half = {"size": 112, "channels": "rgb", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    options = {"model": ("contrast:Contrast",), "layers": ("net.conv1",), "trust_code": True}
    for policy in ("mean", "each"):
        out = tmp_path / policy
        go(data, out, **options, preprocessing={"*": half}, references=policy)
        assert [(row[0], row[2]) for row in failures(out)] == [("id0001/001.png", "embed")]
        with open_results(out) as results:
            missing = np.isnan(results.map("Contrast", "net.conv1")).any(axis=(1, 2))
            assert missing.nonzero()[0].tolist() == [5]


def test_missing_and_wrong_region_masks(faces, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(faces, data)
    (data / ".labels/id0000/000.png").unlink()
    Image.new("L", (50, 50)).save(data / ".labels/id0000/001.png")
    go(data, tmp_path / "out")
    rows = failures(tmp_path / "out")
    assert [(row[0], row[2]) for row in rows] == [("id0000/000.png", "label"), ("id0000/001.png", "label")]
    assert "50x50" in rows[1][3]
    with open_results(tmp_path / "out") as results:
        shares = results.region_share("demo", TAP)
        assert np.isnan(shares[:2]).all()
        assert np.isfinite(shares[2:]).all()
        assert len(results) == 48


def test_without_region_masks_there_are_no_shares(faces, tmp_path):
    go(faces, tmp_path / "out", parser="none")
    with open_results(tmp_path / "out") as results:
        assert (results.file[f"model/demo/layer/{TAP}/support_size"][...] > 0).all()
        with pytest.raises(RequestError, match="without region masks"):
            results.region_share("demo", TAP)


def test_metadata_is_kept_for_images_and_people(faces, finished_run):
    with open_results(finished_run) as results:
        assert set(results.text("image/glasses")) <= {"yes", "no", "True", "False", "0", "1", "true", "false"}
        people, images = results.text("identity/glasses"), results.text("image/glasses")
        assert (people[results.identities] == images).all()


def test_a_folder_that_holds_something_is_not_touched(faces, finished_run, tmp_path):
    with pytest.raises(RequestError, match="--resume or choose another"):
        go(faces, finished_run)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RequestError, match="is not empty"):
        go(faces, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "arcface"}, "--detector retinaface=FILE or dlib, or --align none"),
        ({"align": "round"}, "--align must be one of"),
        ({"align": "paper", "detector": "retinaface=net.pth"}, "--align paper needs the 68 landmarks"),
        ({"references": "all"}, "--references must be one of mean, each, mean-map, got 'all'"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"workers": -1}, "must not be negative"),
        ({"device": "gpu"}, "--device must be"),
        ({"device": "meta"}, "--device must be"),
        ({"device": "cuda:99"}, "asks for a GPU"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"shard_images": 0}, "--shard-images must be at least 1"),
        ({"model": ("row:=demo",)}, "none of row, person"),
        ({"model": (MODEL, MODEL)}, "used twice"),
        ({"model": ()}, "at least once"),
        ({"layers": ("other:conv1",)}, "names a model that is not in this run"),
        ({"layers": ("conv9",)}, "near names: .*conv1"),
        ({"precision": "fp64"}, "--precision"),
    ],
)
def test_requests_that_cannot_be_met_leave_nothing_behind(faces, tmp_path, options, words):
    with pytest.raises(RequestError, match=words):
        go(faces, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(RequestError, match="no such file or folder"):
        go(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="image"):
        go(tmp_path / "empty", tmp_path / "out")
