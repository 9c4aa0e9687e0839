"""Crops of a finished run made again: bit for bit, and what has become of its photos."""

import csv
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leamfast import RequestError, open_results
from leamfast.datasets.decoding import read_image
from leamfast.datasets.formats import read_manifest
from leamfast.datasets.manifest import Manifest
from leamfast.engine import batch, recrop
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.crops import Crops, make_crops
from leamfast.engine.finding import Finding
from leamfast.engine.part_arrays import crop_arrays, identity_arrays, image_arrays
from leamfast.engine.plan import plan_shards
from leamfast.engine.prepare import prepare, read_data
from leamfast.engine.recrop import Recrop
from leamfast.engine.site import LocalSite
from leamfast.faces.alignment import ARCFACE_TEMPLATE
from leamfast.faces.regions import REGIONS
from leamfast.store.index import write_index
from leamfast.store.part import Part, write_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import write_settings
from leamfast.store.verify import verify
from tests.engine.template_detector import template_finding

SIZES = (112, 60)


def quiet(text: str) -> None:
    pass


def run_of(manifest: Manifest, out: Path, finding: Finding | None, sizes=SIZES) -> Crops:
    """A run that stores images and crops and has no models, in shards of a few images; all its crops."""
    folder, plan = RunFolder(out), plan_shards(manifest, 5)
    total = Crops(images={size: [] for size in sizes})
    folder.shards.mkdir(parents=True)
    for shard in plan:
        crops = make_crops(shard, manifest.root, sizes, finding, None, 1)
        people = [row.identity for row in crops.rows]
        arrays = image_arrays(crops, (), finding is not None) | identity_arrays(shard, people, ())
        for size in sizes:
            arrays |= crop_arrays(crops, size, labels=False)
            total.images[size] += crops.images[size]
        total.rows += crops.rows
        write_part(folder.part(shard.number), Part(shard.number, arrays))
    write_index(out, [folder.part(shard.number) for shard in plan], len(plan), REGIONS)
    frozen = {"shards": {"count": len(plan)}, "threads": 1, "align": "arcface" if finding else "none"}
    write_settings(folder.settings, {}, frozen)
    return total


@pytest.fixture(scope="module")
def photos(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with three photos each: synthetic faces in several sizes and kinds of file."""
    folder = tmp_path_factory.mktemp("photos")
    for number, file in enumerate(sorted(faces.glob("id000[0-2]/00[0-2].png"))):
        side = 120 + 17 * number
        photo = Image.open(file).resize((side, side + number), Image.Resampling.BICUBIC)
        place = folder / file.parent.name / (file.stem + (".jpg" if number % 2 else ".png"))
        place.parent.mkdir(exist_ok=True)
        photo.save(place)
    return folder


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, Crops]:
    """A run over `photos`, its manifest and its crops. Not to be changed."""
    out, manifest = tmp_path_factory.mktemp("run") / "out", read_manifest(photos)
    return out, manifest, run_of(manifest, out, template_finding())


def assert_all_equal(out: Path, manifest: Manifest, wanted: Crops, sizes=SIZES) -> None:
    with open_results(out) as results:
        assert len(results) == len(wanted.rows) > 0
        found = Recrop(results, manifest).crops(range(len(results)), sizes, 2)
    assert found.failures == {}
    assert set(found.images) == set(sizes)
    for size in sizes:
        np.testing.assert_array_equal(found.images[size], np.stack(wanted.images[size]), strict=True)


def test_warped_crops_come_back_bit_for_bit(finished):
    out, manifest, wanted = finished
    assert_all_equal(out, manifest, wanted)


def test_aligned_crops_of_another_size_come_back_bit_for_bit(faces, tmp_path):
    manifest = read_manifest(faces)
    assert_all_equal(tmp_path / "out", manifest, run_of(manifest, tmp_path / "out", None))


def test_a_run_of_the_main_pass(faces, finished_run):
    request = BatchRequest(
        data=faces, out=finished_run, model=("demo=random:0",), align="none", shard_images=12, batch_size=5,
        threads=1, resume=True,
    )  # fmt: skip
    manifest = read_data(request, quiet)
    prepared = prepare(request, manifest, LocalSite(request), None, quiet)
    wanted = Crops(images={112: []})
    for shard in prepared.plan:
        crops = prepared.function.prepare(shard)
        wanted.rows += crops.rows
        wanted.images[112] += crops.images[112]
    assert_all_equal(finished_run, manifest, wanted, (112,))
    with open_results(finished_run) as results:
        assert "points" not in results.file["image"]


def test_each_photo_is_decoded_once_for_all_sizes_and_rows(finished, monkeypatch):
    out, manifest, wanted = finished
    decoded, whole = [], recrop.decode_part
    monkeypatch.setattr(recrop, "decode_part", lambda data, rect: decoded.append(1) or whole(data, rect))
    rows = [5, 0, 5, 8, 0]
    with open_results(out) as results:
        again = Recrop(results, manifest)
        found = again.crops(rows, SIZES, 3)
        assert len(decoded) == 3
        one = again.crops(np.array([5]), [60])
    for size in SIZES:
        np.testing.assert_array_equal(found.images[size], np.stack(wanted.images[size])[rows])
    np.testing.assert_array_equal(one.images[60], found.images[60][:1])
    assert set(one.images) == {60}


def test_rows_that_lie_far_apart_are_read_one_by_one(finished, monkeypatch):
    out, manifest, wanted = finished
    monkeypatch.setattr(recrop, "DENSE", 1)
    with open_results(out) as results:
        found = Recrop(results, manifest).crops([7, 1], [112])
        nothing = Recrop(results, manifest).crops([], [112])
    assert found.failures == nothing.failures == {}
    np.testing.assert_array_equal(found.images[112], np.stack(wanted.images[112])[[7, 1]])
    assert nothing.images[112].shape == (0, 112, 112, 3)


def test_parts_of_pictures(photos, tmp_path):
    first = Image.open(sorted(photos.glob("*/*"))[0]).convert("RGB")
    sheet = Image.new("RGB", (2 * first.width, first.height))
    sheet.paste(first, (0, 0))
    sheet.paste(first.rotate(3), (first.width, 0))
    data = tmp_path / "data"
    data.mkdir()
    sheet.save(data / "sheet.png")
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([
            ["path", "identity", "rect"],
            ["sheet.png", "a", f"0 0 {first.width} {first.height}"],
            ["sheet.png", "a", f"{first.width} 0 {2 * first.width} {first.height}"],
            ["sheet.png", "b", f"1 0 {first.width} {first.height}"],
        ])  # fmt: skip
    manifest = read_manifest(data)
    wanted = run_of(manifest, tmp_path / "out", template_finding())
    assert_all_equal(tmp_path / "out", manifest, wanted)
    assert not np.array_equal(wanted.images[60][0], wanted.images[60][1])


def test_images_within_a_tar(photos, tmp_path):
    with tarfile.open(tmp_path / "faces.tar", "w") as tar:
        for file in sorted(photos.glob("*/*")):
            person = file.parent.name
            tar.add(file, f"{person}-{file.name}")
            text = json.dumps({"identity": person}).encode()
            info = tarfile.TarInfo(f"{person}-{file.stem}.json")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    manifest = read_manifest(tmp_path / "faces.tar")
    assert all(entry.spans for entry in manifest.entries)
    assert_all_equal(tmp_path / "out", manifest, run_of(manifest, tmp_path / "out", template_finding()))


def test_a_photo_that_is_not_what_it_was_costs_its_own_row(finished, tmp_path):
    out, manifest, wanted = finished
    data = Path(shutil.copytree(manifest.root, tmp_path / "data"))
    paths = [data / entry.path for entry in manifest.entries]
    paths[1].unlink()
    paths[3].write_bytes(paths[4].read_bytes())
    paths[5].write_bytes(b"")
    paths[6].unlink()
    paths[6].mkdir()
    with open_results(out) as results:
        found = Recrop(results, manifest, data).crops([8, 6, 5, 4, 3, 2, 1, 0, 1], SIZES, 2)
    assert found.failures == {
        1: "file not found",
        3: "the file has changed since the run",
        5: "the file has changed since the run",
        6: "is a folder, not a file",
    }
    for size in SIZES:
        images, then = found.images[size], np.stack(wanted.images[size])
        np.testing.assert_array_equal(images[[0, 3, 5, 7]], then[[8, 4, 2, 0]])
        assert not images[[1, 2, 4, 6, 8]].any()


def test_what_cannot_be_decoded_or_warped_has_its_reason(finished, monkeypatch):
    out, manifest, _ = finished
    entries = list(manifest.entries)
    entries[0] = replace(entries[0], spans=((0, 10**9),))
    with open_results(out) as results:
        found = Recrop(results, replace(manifest, entries=tuple(entries))).crops([0, 1], [60])
        assert found.failures == {0: "the image lies beyond the end of its file, which is cut off"}

        def refused(data, rect):
            raise recrop.DecodeError("file is cut off or damaged")

        monkeypatch.setattr(recrop, "decode_part", refused)
        found = Recrop(results, manifest).crops([0, 1], [60])
        assert found.failures == dict.fromkeys((0, 1), "file is cut off or damaged")


def test_a_data_set_in_another_order_and_with_less_in_it(finished):
    out, manifest, wanted = finished
    kept = tuple(entry for entry in reversed(manifest.entries) if entry.name != manifest.entries[2].name)
    renamed = tuple(replace(e, identity="x") if e.name == manifest.entries[7].name else e for e in kept)
    with open_results(out) as results:
        found = Recrop(results, replace(manifest, entries=renamed)).crops(range(9), [112])
    assert found.failures == dict.fromkeys((2, 7), "the data set has no such image of that person any more")
    rest = [0, 1, 3, 4, 5, 6, 8]
    np.testing.assert_array_equal(found.images[112][rest], np.stack(wanted.images[112])[rest])


def test_of_several_entries_of_one_name_the_first_is_taken(finished):
    out, manifest, _ = finished
    entries = manifest.entries
    elsewhere = replace(entries[4], spans=((0, 3),))  # of the same name, and not the same bytes
    with open_results(out) as results:
        first = replace(manifest, entries=(elsewhere, entries[4]))
        last = replace(manifest, entries=(entries[4], elsewhere))
        assert Recrop(results, first).crops([4], [60]).failures == {4: "the file has changed since the run"}
        assert Recrop(results, last).crops([4], [60]).failures == {}


def test_rows_and_sizes_that_there_are_not(finished):
    out, manifest, _ = finished
    with open_results(out) as results:
        again = Recrop(results, manifest)
        for rows, beyond in (([0, 9], 9), ([-1], -1)):
            with pytest.raises(ValueError, match=rf"rows must lie in 0..8, got {beyond}"):
                again.crops(rows, [112])
        with pytest.raises(RequestError, match="has no crops of 61 pixels: its models take 60, 112"):
            again.crops([0], [112, 61])


def test_a_run_that_does_not_say_how_it_aligned(finished, tmp_path):
    out, manifest, _ = finished
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    write_settings(copy / "run.toml", {}, {"shards": {"count": 2}, "threads": 1})
    with open_results(copy) as results, pytest.raises(RequestError, match="how faces were aligned"):
        Recrop(results, manifest)


@pytest.mark.parametrize("split", [None, 2], ids=["whole", "in slices"])
def test_a_run_stores_the_points_of_its_faces(photos, tmp_path, monkeypatch, split):
    xarray = pytest.importorskip("xarray")
    monkeypatch.setattr(batch, "load_finding", template_finding)
    (tmp_path / "weights.pth").touch()
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "id0001/broken.png").write_bytes(b"")
    request = BatchRequest(
        data=data, out=tmp_path / "out", model=("demo=random:0",), layers=("conv1",), shard_images=3,
        detector=f"retinaface={tmp_path / 'weights.pth'}", threads=1,
        split_images=split,
    )  # fmt: skip
    assert run_batch(request, quiet).images == 9
    assert len(list((tmp_path / "out/shards").glob("part-*.h5"))) == (3 if split is None else 9)
    assert verify(tmp_path / "out") == []
    with open_results(tmp_path / "out") as results:
        stored = results.file["image/points"]
        sides = [read_image(data / name).pixels.shape[1] for name in results.text("image/path")]
        wanted = (ARCFACE_TEMPLATE * (np.array(sides)[:, None, None] / 112)).astype(np.float32)
        np.testing.assert_array_equal(stored[...], wanted, strict=True)
        assert [stored.dims[axis].keys() for axis in range(3)] == [["row"], ["point"], ["coordinate"]]
        # The stored transform carries the points onto the template.
        matrices = results.file["crop/112/transform"][...]
    carried = np.einsum("nij,nkj->nki", matrices[:, :, :2], wanted) + matrices[:, None, :, 2]
    np.testing.assert_allclose(carried, np.broadcast_to(ARCFACE_TEMPLATE, carried.shape), atol=1e-4)
    with xarray.open_datatree(tmp_path / "out/index.h5", engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["image/points"].values, wanted)


def test_real_photos_with_their_detector(shared_data, tmp_path):
    request = BatchRequest(
        data=shared_data / "photos", out=tmp_path / "out", model=("demo=random:0",), layers=("conv1",),
        detector=f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}", limit_identities=4, threads=1,
    )  # fmt: skip
    assert run_batch(request, quiet).failures == 0
    manifest = read_data(request, quiet)
    prepared = prepare(request, manifest, LocalSite(request), None, quiet)
    (shard,) = prepared.plan
    wanted = prepared.function.prepare(shard)  # from the cache of crops, whose points are those of the run
    assert_all_equal(tmp_path / "out", manifest, wanted, (112,))
    fresh = make_crops(shard, manifest.root, [112], replace(prepared.function.finding, cache=None), None, 1)
    with open_results(tmp_path / "out") as results:
        points = results.file["image/points"][...]
    np.testing.assert_array_equal(points, np.stack(wanted.points), strict=True)
    np.testing.assert_array_equal(points, np.stack(fresh.points), strict=True)
    assert np.ptp(points[:, 0, 0]) > 10
    np.testing.assert_array_equal(np.stack(wanted.images[112]), np.stack(fresh.images[112]))
