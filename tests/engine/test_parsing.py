"""Region masks in a run: from files, from a parser of faces, partly unknown; and crops that are kept."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from leamfast import RequestError, open_results
from leamfast.datasets.folders import read_folders
from leamfast.engine import crops
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.crop_cache import CropCache
from leamfast.engine.crops import Crops, make_crops
from leamfast.engine.finding import Finding
from leamfast.engine.masks import MaskFiles
from leamfast.engine.plan import plan_shards
from leamfast.faces.alignment import ARCFACE_TEMPLATE, FaceError
from leamfast.faces.regions import REGIONS
from leamfast.faces.selection import Detection
from leamfast.store.arrays import NO_LABEL, THRESHOLDS
from leamfast.store.verify import verify
from leamfast_kernels import region_share

TAP = "layer2.0.conv1"


def go(data: Path, out: Path, **options):
    request = BatchRequest(
        data=data, out=out, model=("demo=random:0",), layers=(TAP,), threads=1,
        **{"align": "none", **options},
    )  # fmt: skip
    return run_batch(request, note=lambda text: None)


def failures(out: Path) -> list[list[str]]:
    with (out / "failures.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture
def unlabelled(faces: Path, tmp_path: Path) -> Path:
    """Some synthetic faces without their masks."""
    data = tmp_path / "data"
    for person in ("id0000", "id0001"):
        shutil.copytree(faces / person, data / person)
    return data


@pytest.fixture
def masks(faces: Path, tmp_path: Path) -> Path:
    """Masks of the same faces that know nothing of the lower half, and of one face nothing at all."""
    folder = tmp_path / "masks"
    for file in sorted((faces / ".labels").glob("id000[01]/*.png")):
        label = np.array(Image.open(file))
        label[56:] = NO_LABEL
        if file.stem == "003":
            label[:] = NO_LABEL
        place = folder / file.relative_to(faces / ".labels")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(place)
    return folder


def test_shares_of_what_is_known_are_shares_of_the_whole_support(unlabelled, masks, tmp_path):
    go(unlabelled, tmp_path / "out", parser=f"masks={masks}")
    assert failures(tmp_path / "out") == []
    assert verify(tmp_path / "out") == []
    with open_results(tmp_path / "out") as results:
        labels = torch.from_numpy(results.file["crop/112/label"][...])
        maps = torch.from_numpy(results.map("demo", TAP))
        found = results.region_share("demo", TAP)
        attributes = dict(results.file["crop/112"].attrs)
    assert attributes == {"parser": "masks", "regions": ",".join(REGIONS)}
    wanted, _ = region_share(maps, labels.clamp_max(19), THRESHOLDS, 112, classes=20)
    unknown = np.arange(8) % 4 == 3
    np.testing.assert_array_equal(found[~unknown], wanted[~unknown][..., :19].numpy())
    assert np.isnan(found[unknown]).all()
    # What is missing to one is the share of what is unknown, and it is not little here.
    missing = 1 - found[~unknown].sum(axis=2)
    np.testing.assert_allclose(missing, wanted[~unknown][..., 19], atol=1e-6)
    assert missing.max() > 0.2


def test_masks_that_are_missing_or_of_another_size_leave_the_image_in(unlabelled, masks, tmp_path):
    (masks / "id0000/001.png").unlink()
    Image.new("L", (50, 60)).save(masks / "id0001/000.png")
    Image.new("L", (112, 112), 30).save(masks / "id0001/001.png")
    assert go(unlabelled, tmp_path / "out", parser=f"masks={masks}").images == 8
    reasons = {(row[0], row[2]): row[3] for row in failures(tmp_path / "out")}
    assert reasons == {
        ("id0000/001.png", "label"): "id0000/001.png: file not found; the image is used without it",
        ("id0001/000.png", "label"): "id0001/000.png is 50x60 where the image is 112x112; "
        "the image is used without it",
        ("id0001/001.png", "label"): "id0001/001.png: the mask holds the value 30, regions end at 18, "
        "255 is unknown; the image is used without it",
    }
    with open_results(tmp_path / "out") as results:
        assert np.isnan(results.region_share("demo", TAP)).all(axis=(1, 2)).sum() == 5


class _Detector:
    """Finds the aligned face itself, moved a little; it counts what it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.seen += 1
        points = (ARCFACE_TEMPLATE + [3, -2]).astype(np.float32)
        return [Detection(np.float32([10, 5, 100, 110]), points, 0.9999)]

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self.detect(image) for image in images]


class _Parser:
    """Knows the nose, where the picture is bright, and fails at every fourth face."""

    known = ("nose", "face")

    def __init__(self) -> None:
        self.seen = 0

    def parse(self, photo: np.ndarray, face: Detection) -> np.ndarray:
        self.seen += 1
        if photo[0, 0].sum() % 4 == 0:
            raise FaceError("it looks away")
        assert (face.points == (ARCFACE_TEMPLATE + [3, -2]).astype(np.float32)).all()
        return np.where(photo.mean(axis=2) > 120, REGIONS.index("nose"), NO_LABEL).astype(np.uint8)


def test_a_parser_sees_each_photo_once_and_crops_are_kept_with_their_labels(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_folders(faces)
    (shard,) = plan_shards(manifest, 1000)
    detector, parser = _Detector(), _Parser()
    cache = CropCache(["words"], tmp_path / "crops.sqlite3", pytest.fail)
    decoded = []
    whole = crops.decode_part
    monkeypatch.setattr(crops, "decode_part", lambda data, rect: decoded.append(1) or whole(data, rect))

    def made(cache: CropCache | None) -> tuple[Crops, int, int, int]:
        detector.seen = parser.seen = 0
        decoded.clear()
        found = make_crops(shard, manifest.root, [112, 60], Finding(detector), parser, 2, cache)
        return found, detector.seen, parser.seen, len(decoded)

    plain, *work = made(None)
    failed = [failure for failure in plain.failures if failure.stage == "parse"]
    assert work == [48, 48, 48]
    assert 0 < len(failed) < 48
    assert failed[0].reason == "it looks away; the image is used without regions"
    points = np.stack(plain.points)
    assert points.dtype == np.float32
    assert (points == (ARCFACE_TEMPLATE + [3, -2]).astype(np.float32)).all()
    for again in (False, True):
        found, *work = made(cache)
        # What failed is tried again.
        assert work == ([len(failed)] * 3 if again else [48, 48, 48])
        assert found.rows == plain.rows
        assert found.failures == plain.failures
        np.testing.assert_array_equal(np.stack(found.points), np.stack(plain.points), strict=True)
        for size in (112, 60):
            for kind in ("images", "transforms", "labels"):
                np.testing.assert_array_equal(
                    np.stack(getattr(found, kind)[size]), np.stack(getattr(plain, kind)[size]), strict=True
                )
    # The crop is moved by 3 and 2 pixels: what lies outside the photo is unknown.
    label = plain.labels[112][next(i for i, row in enumerate(plain.rows) if plain.labels[112][i].min() < 255)]
    assert (label[:, -3:] == NO_LABEL).all() or (label[:, :3] == NO_LABEL).all()
    cache.close()


def test_masks_in_files_are_read_again_and_not_kept(faces: Path, tmp_path: Path) -> None:
    manifest = read_folders(faces)
    (shard,) = plan_shards(manifest, 1000)
    cache = CropCache(["words"], tmp_path / "crops.sqlite3", pytest.fail)
    masks = MaskFiles(faces, faces / ".labels")
    first = make_crops(shard, manifest.root, [112], Finding(_Detector()), masks, 2, cache)
    assert first.failures == []
    assert (np.stack(first.labels[112]) != NO_LABEL).mean() > 0.9
    again = make_crops(shard, manifest.root, [112], Finding(_Detector()), None, 2, cache)
    assert again.labels == {}
    third = make_crops(shard, manifest.root, [112], Finding(_Detector()), masks, 2, cache)
    np.testing.assert_array_equal(np.stack(third.labels[112]), np.stack(first.labels[112]))
    cache.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parser": "polygons"}, "--parser polygons needs photos in which faces are found, got --align none"),
        ({"parser": "x"}, "parser must be farl=FILE"),
        ({"parser": "masks=/absent"}, "there is no folder /absent"),
        (
            {"parser": "polygons", "align": "arcface", "detector": "retinaface=x.pth"},
            "--parser polygons needs the 68 landmarks of --detector dlib, got --detector retinaface=x.pth",
        ),
    ],
)
def test_parsers_that_cannot_work_are_refused_before_the_run(faces, tmp_path, options, words):
    with pytest.raises(RequestError, match=words):
        go(faces, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_resume_refuses_masks_of_another_folder(unlabelled, masks, tmp_path):
    go(unlabelled, tmp_path / "out", parser=f"masks={masks}")
    other = Path(shutil.copytree(masks, tmp_path / "other"))
    with pytest.raises(RequestError, match="parser: masks=.* -> masks="):
        go(unlabelled, tmp_path / "out", parser=f"masks={other}", resume=True)
    go(unlabelled, tmp_path / "out", parser=f"masks={masks}", resume=True)


def test_a_picture_that_cannot_be_warped_costs_itself_alone(faces, tmp_path, monkeypatch):
    manifest = read_folders(faces)
    (shard,) = plan_shards(manifest, 1000)
    warp, calls = crops.warp_image, []

    def fails_at_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise FaceError("the picture is too wide")
        return warp(*arguments)

    monkeypatch.setattr(crops, "warp_image", fails_at_the_third)
    found = make_crops(shard, manifest.root, [112], Finding(_Detector()), None, 1)
    assert len(found.rows) == 47
    ((failure),) = found.failures
    assert (failure.stage, failure.reason) == ("align", "the picture is too wide")


def test_a_parser_of_html_is_refused_before_the_run(faces, shared_data, tmp_path):
    page = tmp_path / "farl.pt"
    page.write_text("<!DOCTYPE html><html>404</html>")
    weights = shared_data / "mobilenet0.25_Final.pth"
    with pytest.raises(RequestError, match="it is a web page, as a download gives that failed"):
        go(faces, tmp_path / "out", align="arcface", detector=f"retinaface={weights}", parser=f"farl={page}")
    assert not (tmp_path / "out").exists()


def test_polygons_tell_nine_regions_of_photos_and_a_second_run_decodes_nothing(
    shared_data, tmp_path, monkeypatch
):
    pytest.importorskip("dlib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"align": "arcface", "detector": "dlib", "parser": "polygons", "limit_identities": 3}
    go(shared_data / "photos", tmp_path / "one", **options)
    known = ("face", "rb", "lb", "re", "le", "nose", "imouth", "llip", "ulip")
    with open_results(tmp_path / "one") as results:
        assert dict(results.file["crop/112"].attrs) == {"parser": "polygons", "regions": ",".join(known)}
        shares = results.region_share("demo", TAP)
        labels = results.file["crop/112/label"][...]
    told = np.isin(REGIONS, known)
    assert np.isnan(shares[..., ~told]).all()
    assert (shares[..., told] >= 0).all()
    assert (shares[..., told].sum(axis=2) <= 1 + 1e-6).all()
    # In an ArcFace crop the hull of jaw and brows fills about half; the eyes are where the template says.
    assert 0.3 < (labels != NO_LABEL).mean() < 0.7
    for eye, place in zip(("re", "le"), ARCFACE_TEMPLATE, strict=False):
        centres = [np.argwhere(label == REGIONS.index(eye)).mean(axis=0)[::-1] for label in labels]
        assert np.linalg.norm(np.median(centres, axis=0) - place) < 2

    def refused(*arguments: object) -> None:
        pytest.fail("a picture was decoded")

    monkeypatch.setattr(crops, "decode_part", refused)
    go(shared_data / "photos", tmp_path / "two", **options)
    with h5py.File(tmp_path / "one/index.h5") as one, h5py.File(tmp_path / "two/index.h5") as two:
        for name in ("crop/112/label", "crop/112/transform", f"model/demo/layer/{TAP}/map"):
            np.testing.assert_array_equal(one[name][...], two[name][...])
        for name in ("fused/region_share", f"layer/{TAP}/region_share"):
            np.testing.assert_array_equal(one[f"model/demo/{name}"][...], two[f"model/demo/{name}"][...])
