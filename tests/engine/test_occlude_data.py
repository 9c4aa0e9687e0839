"""What may be wrong with the images, maps and models of a run that is occluded, and its curves."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from leamfast import RequestError, load_model, open_results
from leamfast.analysis.occlusion_tables import occlusion_tables
from leamfast.datasets.decoding import read_image
from leamfast.engine.occlusion_maps import OcclusionMaps
from leamfast.faces.alignment import resize_crop
from leamfast.faces.regions import REGIONS
from leamfast.leam.fused import normalise
from leamfast.store.index import write_index
from leamfast.store.occlusion import CONTROLS
from leamfast.store.part import read_part, write_part
from leamfast.store.verify import verify
from leamfast_kernels import support, upsample
from tests.engine.occluded_runs import (
    IMAGES,
    occlude,
    occlude_few,
    occluded_copy,
    replace_maps,
    small_blocks,
    some_faces,
    stored,
    tiny_run,
)
from tests.engine.occlusion_networks import PREPROCESSING, spec
from tests.engine.test_batch import assert_same, failures


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    with small_blocks():
        yield


@pytest.fixture(scope="module")
def data(faces, tmp_path_factory) -> Path:
    """Fourteen images of people with 4, 3, 2, 1 and 4 of them. Not to be changed."""
    return some_faces(faces, tmp_path_factory.mktemp("data") / "faces", IMAGES)


@pytest.fixture(scope="module")
def bare(data, tmp_path_factory) -> Path:
    """A run of two models that was not occluded. Not to be changed."""
    return tiny_run(data, tmp_path_factory.mktemp("bare") / "out", ("one", "two"))


@pytest.fixture(scope="module")
def finished(bare, tmp_path_factory) -> Path:
    """The run, occluded in four blocks. Not to be changed."""
    return occluded_copy(bare, tmp_path_factory.mktemp("finished") / "out")


@pytest.fixture
def unoccluded(bare, tmp_path) -> Path:
    return Path(shutil.copytree(bare, tmp_path / "out"))


def run_of_its_own(faces: Path, folder: Path, images, **options) -> Path:
    return tiny_run(some_faces(faces, folder / "faces", images), folder / "out", **options)


# -- what may be wrong with a run


def test_images_without_a_reference_have_no_drop(finished):
    axes, arrays = stored(finished)
    assert arrays.references.tolist() == [3] * 4 + [2] * 3 + [1] * 2 + [0] + [3] * 4
    assert np.isnan(arrays.drop[9]).all()
    assert np.isnan(arrays.cosine[9])
    assert np.isnan(arrays.support_size[9]).all()
    assert np.isfinite(np.delete(arrays.drop, 9, axis=0)).all()
    assert verify(finished) == []


@pytest.mark.parametrize("policy", ["mean", "each", "mean-map"])
@pytest.mark.parametrize("controls", [(), CONTROLS])
def test_a_block_of_people_with_one_image_each(faces, tmp_path, policy, controls):
    """No row of the first two blocks has a map: the pass goes on."""
    out = run_of_its_own(faces, tmp_path, (1, 1, 1, 1, 2, 2), references=policy)
    report = occlude(
        out, controls=controls, fills=("black", "inpaint"), curves=True, seeds=1, percents=(9.0,)
    )
    assert (report.blocks, report.failed_blocks, report.left_out) == (4, 0, {})
    axes, arrays = stored(out)
    assert arrays.references.tolist() == [0] * 4 + [1] * 4
    assert np.isnan(arrays.drop[:4]).all()
    for name in ("cosine", "support_size", "psnr", "ssim", "deletion", "insertion"):
        values = getattr(arrays, name)
        assert np.isnan(values[:4]).all()
        assert not np.isnan(values[4:]).reshape(4, -1).all(axis=1).any()
    assert np.isfinite(arrays.drop[4:, :, :, 0]).all()
    if controls:
        # Two images of two people: another person's map is one of two, and the only master is of one image.
        place = {control: axes.controls.index(control) for control in axes.controls}
        assert np.isfinite(arrays.drop[4:, :, :, place["other-identity"]]).all()
        master = arrays.drop[4:, :, :, place["master"]]
        if policy == "each":  # the only other map was made with the row itself as its reference
            assert np.isnan(master).all()
        else:
            np.testing.assert_array_equal(master, arrays.drop[4:, :, :, place["master-1"]])
    assert verify(out) == []


def test_a_map_with_few_positive_pixels_is_used_as_a_whole(faces, tmp_path):
    out = run_of_its_own(faces, tmp_path, (2, 2), references="mean")

    def single(tap: str, first: int, maps: np.ndarray) -> np.ndarray:
        found = np.zeros_like(maps)
        for n in range(len(maps)):
            found[n, 3, 2 + n] = 1.0
        if first == 0:
            found[1] = 0  # of the second row nothing is left
        return found

    replace_maps(out, single)
    occlude(out, controls=("shifted", "other-identity", "master"), fills=("black", "mean"), curves=True)
    axes, arrays = stored(out)
    with open_results(out) as results:
        maps = {tap: upsample(torch.from_numpy(results.map("one", tap)), 32) for tap in ("conv1", "conv2")}
    for m, name in enumerate(("conv1", "conv2")):
        positive = (maps[name] > 0).sum(dim=(1, 2)).tolist()
        assert positive[1] == 0
        for p, percent in enumerate(axes.percents):
            asked = round(percent / 100 * 32 * 32)
            assert arrays.support_size[:, m, p].tolist() == [min(asked, count) for count in positive]
    # conv1 has 2 pixels a cell, and so 16 that are positive: less than both percents ask for.
    assert arrays.support_size[[0, 2, 3], 0].tolist() == [[16, 16]] * 3
    own = arrays.drop[:, :, :, 0]
    np.testing.assert_array_equal(own[0, 0, 0], own[0, 0, 1])
    assert np.abs(own[[0, 2, 3], :2]).min() > 1e-5
    # Nothing is filled where a map is zero: no drop, though there is a map.
    np.testing.assert_allclose(own[1, :2], 0, atol=1e-6)
    assert arrays.support_size[1].max() == 0
    assert np.isnan(arrays.psnr[1]).all()
    np.testing.assert_allclose(arrays.ssim[1], 1, atol=1e-6)
    # Curves go on where the map has ended: in random order, down to the whole crop.
    assert np.isfinite(arrays.deletion[1, :, :3]).all()


def test_masters_of_sparse_maps_hold_no_rounding_errors(faces, tmp_path):
    """Where the own map alone is not zero, the mean of all others is zero to the bit."""
    out = run_of_its_own(faces, tmp_path, (3, 3, 3), references="mean", shard_images=9)

    def apart(tap: str, first: int, maps: np.ndarray) -> np.ndarray:
        found = np.random.default_rng(0).uniform(0.1, 1, maps.shape).astype(np.float32)
        middle = maps.shape[1] // 2
        found[::3, middle:] = 0
        found[1::3, : middle + 2] = found[2::3, : middle + 1] = 0
        return found

    replace_maps(out, apart)
    with open_results(out) as results:
        for name in ("conv1", "conv2", "fused"):
            maps = OcclusionMaps(results, "one", name, False, "cpu", None, 32)
            two, everyone = maps.masters(np.arange(9), [2, None])
            assert (two == 0).any()
            assert torch.equal(two > 0, everyone > 0)
            torch.testing.assert_close(two, everyone, rtol=1e-5, atol=1e-9)


def test_masters_have_not_seen_near_duplicates_of_the_image(unoccluded):
    paths = sorted((unoccluded / "shards").glob("part-*.h5"))
    part = read_part(paths[0])
    repeated = part.arrays["model/one/duplicate_of"]
    values = repeated.values.copy()
    values[:4] = [-1, 0, -1, -1]  # of the first person's four images two are alike
    changed = {"model/one/duplicate_of": replace(repeated, values=values)}
    write_part(paths[0], replace(part, arrays={**part.arrays, **changed}))
    write_index(unoccluded, paths, len(paths), REGIONS)
    seen = {0: [2, 3], 1: [2, 3], 2: [0, 1, 3], 3: [0, 1, 2]}
    with open_results(unoccluded) as results:
        for name in ("conv1", "fused"):
            maps = OcclusionMaps(results, "one", name, False, "cpu", None, 32)
            shares = normalise(maps.of_rows(np.arange(4)).double())
            one, three, everyone = maps.masters(np.arange(4), [1, 3, None])
            for row, others in seen.items():
                torch.testing.assert_close(
                    everyone[row].double(), shares[others].mean(dim=0), rtol=1e-4, atol=1e-8
                )
                assert any(torch.allclose(one[row].double(), shares[other], rtol=1e-5) for other in others)
                assert bool(three[row].isnan().all()) == (len(others) < 3)


def test_one_identity_has_no_others(faces, tmp_path):
    out = run_of_its_own(faces, tmp_path, (4,))
    notes: list[str] = []
    report = occlude(out, note=notes.append)
    for control in ("other-identity", "population"):
        assert control not in report.controls
        assert any(f"without the control {control}: there is only one person" in text for text in notes)
    axes, arrays = stored(out)
    assert axes.controls == report.controls
    assert np.isfinite(arrays.drop[:, :, :, axes.controls.index("master")]).all()


def test_a_run_without_masks_and_points_has_fewer_controls(data, tmp_path):
    out = tiny_run(data, tmp_path / "out", parser="none", limit_identities=2)
    notes: list[str] = []
    report = occlude_few(out, note=notes.append, controls=("shifted", "shifted-on-face", "nearest-pose"))
    assert report.controls == ("own", "shifted")
    assert any("without the control shifted-on-face: there are no region masks" in text for text in notes)
    assert any("without the control nearest-pose: neither face points" in text for text in notes)


def test_photos_that_changed_or_are_gone_cost_their_own_rows(data, unoccluded, finished, tmp_path):
    moved = Path(shutil.copytree(data, tmp_path / "faces"))
    paths = sorted(moved.glob("id*/*.png"))
    paths[2].unlink()
    with Image.open(paths[5]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(paths[5])
    report = occlude_few(unoccluded, data=moved)
    assert (report.blocks, report.failed_blocks) == (4, 0)
    assert sum(report.left_out.values()) == 2
    assert report.left_out.pop("the file has changed since the run") == 1
    assert len(report.left_out) == 1
    rows = [row for row in range(14) if row not in (2, 5)]
    for evaluated, source in (("one", "one"), ("two", "one")):
        before, after = stored(finished, evaluated, source)[1], stored(unoccluded, evaluated, source)[1]
        for name, values in after.by_name().items():
            np.testing.assert_array_equal(values[rows], before.by_name()[name][rows], err_msg=name)
            gone = values[[2, 5]]
            assert (gone == 0).all() if name == "references" else np.isnan(gone).all()
    assert verify(unoccluded) == []
    assert occlusion_tables(unoccluded).occlusion[0].n == before.references[rows].sum()
    left_out = [line for line in failures(unoccluded) if line[2] == "occlude"]
    assert [line[0] for line in left_out] == [p.relative_to(moved).as_posix() for p in (paths[2], paths[5])]
    # Where they can be read again, the blocks that lack them are made anew.
    report = occlude_few(unoccluded, data=data)
    assert (report.blocks, report.skipped, report.left_out) == (2, 2, {})
    assert_same(finished, unoccluded)
    assert not [line for line in failures(unoccluded) if line[2] == "occlude"]


def test_photos_that_are_all_gone_are_an_error(data, unoccluded, tmp_path):
    empty = Path(shutil.copytree(data, tmp_path / "faces"))
    for path in empty.glob("id*/*.png"):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    with pytest.raises(RequestError, match=r"no image of .* is as its run read it .*: give --data"):
        occlude_few(unoccluded, data=empty)
    assert not list((unoccluded / "occlusion").glob("*.h5"))


def test_a_model_that_sees_another_image_loses_that_row_alone(unoccluded):
    """As a network that has changed without its weights does: what it embeds is not what the run stored."""
    path = unoccluded / "shards/part-00000.h5"
    with h5py.File(path, "r+") as part:
        part["model/two/embedding"][1] *= -1
    occlude_few(unoccluded)
    one, two = stored(unoccluded, "one", "two")[1], stored(unoccluded, "two", "one")[1]
    assert np.isfinite(one.drop[1]).all()
    assert np.isnan(two.drop[1]).all()
    assert (one.references[1], two.references[1]) == (3, 0)


def test_an_image_without_an_embedding_is_none(faces, tmp_path):
    """Of a picture in which nothing shines a network without biases makes nothing at all."""
    data = some_faces(faces, tmp_path / "faces", (3, 3))
    Image.fromarray(np.zeros((112, 112, 3), np.uint8)).save(data / "id0000/001.png")
    out = tiny_run(data, tmp_path / "out", ("bright",))
    report = occlude_few(out)
    assert report.left_out == {}
    arrays = stored(out, "bright", "bright")[1]
    assert arrays.references.tolist() == [1, 0, 1, 2, 2, 2]
    assert np.isnan(arrays.drop[1]).all()
    assert np.isnan(arrays.cosine[1])
    assert np.isfinite(np.delete(arrays.drop, 1, axis=0)).all()


def test_references_that_equal_their_image_are_none(faces, tmp_path):
    """Three images, of which two differ by next to nothing: these have one reference each."""
    found = {}
    for policy in ("each", "mean-map"):
        folder = tmp_path / policy
        data = some_faces(faces, folder / "faces", (3, 3))
        with Image.open(data / "id0000/000.png") as image:
            red, green, blue = image.getpixel((0, 0))
            image.putpixel((0, 0), (red ^ 1, green, blue))
            image.save(data / "id0000/001.png")
        out = tiny_run(data, folder / "out", references=policy)
        occlude_few(out, controls=("random",))
        found[policy] = stored(out)[1]
        assert found[policy].references.tolist() == [1, 1, 2, 2, 2, 2]
    np.testing.assert_allclose(found["each"].cosine, found["mean-map"].cosine, atol=1e-6)
    random = [found[policy].drop[:, :, :, 1] for policy in found]
    np.testing.assert_allclose(*random, atol=1e-6)


def test_a_run_of_which_a_part_is_not_there_yet(unoccluded):
    paths = sorted((unoccluded / "shards").glob("part-*.h5"))
    paths.pop().unlink()
    write_index(unoccluded, paths, len(paths) + 1, REGIONS)
    report = occlude_few(unoccluded)
    assert not report.complete
    assert report.images < 14
    arrays = stored(unoccluded)[1]
    assert len(arrays.drop) == report.images
    assert np.isfinite(arrays.drop[:4]).all()


@pytest.mark.parametrize("policy", ["mean", "each", "mean-map"])
def test_an_identity_in_slices_is_occluded_as_a_whole_one(faces, tmp_path, policy):
    data = tmp_path / "faces"
    for person, name in enumerate(("big", "big", "big", "other", "third")):
        (data / name).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            picture = faces / f"id{person:04d}" / f"{number:03d}.png"
            shutil.copy(picture, data / name / f"{person}{number}.png")
    asked = {"references": policy, "max_references": 2, "parser": "none"}
    found = []
    for slices in (None, 4):
        out = tiny_run(data, tmp_path / str(slices), shard_images=4, split_images=slices, **asked)
        report = occlude_few(out, controls=("random", "other-identity", "population", "master-2", "master"))
        assert (report.images, report.left_out) == (15, {})
        found.append(stored(out)[1])
    assert len(list((tmp_path / "4/shards").glob("*.h5"))) > len(
        list((tmp_path / "None/shards").glob("*.h5"))
    )
    one, two = found
    assert one.references.tolist() == two.references.tolist()
    np.testing.assert_allclose(two.cosine, one.cosine, atol=1e-5)
    # Maps of other batches differ by rounding, which may move a pixel across the rim of a support.
    difference = np.abs(two.drop - one.drop)
    assert difference.max() < 0.02
    assert np.median(difference) < 1e-5


# -- curves


def test_curves_pass_through_the_drops(unoccluded):
    """What is deleted first is the support: where it is whole, the curve is the cosine less the drop."""
    occlude(unoccluded, percents=(5.0, 20.0, 50.0), curves=True, seeds=1, sources=("one",))
    axes, arrays = stored(unoccluded, "two", "one")
    assert axes.steps == tuple(range(0, 101, 5))
    rows = [row for row in range(14) if row != 9]
    curved = ("own", "random", "shifted", "other-identity", "population", "centre")
    for control in axes.controls:
        c = axes.controls.index(control)
        deletion, insertion = arrays.deletion[rows, :, c, 0], arrays.insertion[rows, :, c, 0]
        if control not in curved:
            assert np.isnan(deletion).all()
            assert np.isnan(insertion).all()
            continue
        before = np.broadcast_to(arrays.cosine[rows, None], (13, 3))
        np.testing.assert_allclose(deletion[..., 0], before, atol=1e-6)
        np.testing.assert_allclose(insertion[..., -1], before, atol=1e-6)
        np.testing.assert_allclose(deletion[..., -1], insertion[..., 0], atol=1e-6)
        for p, percent in enumerate(axes.percents):
            drop = arrays.drop[rows][:, :, p, c, 0, 0]
            whole = arrays.support_size[rows][:, :, p] == round(percent / 100 * 1024)
            assert whole.all()
            step = axes.steps.index(percent)
            np.testing.assert_allclose(deletion[..., step], before - drop, atol=1e-5, err_msg=control)
    assert np.isnan(arrays.deletion[9]).all()


def test_insertion_brings_the_support_back(unoccluded, data):
    """What is kept of a black crop is what deletion takes first."""
    occlude(unoccluded, controls=("centre",), percents=(20.0,), curves=True, seeds=1, evaluated=("one",))
    axes, arrays = stored(unoccluded)
    path = sorted(data.glob("id*/*.png"))[4]
    crop = resize_crop(read_image(path).pixels, 32)[0]
    model = load_model(spec("one"), preprocessing=PREPROCESSING["one"], trust_code=True)
    step = axes.steps.index(20)
    with open_results(unoccluded) as results:
        mask = support(torch.from_numpy(results.map("one", "conv2", [4])), [20], 32)[0, 0].numpy()
        others = torch.from_numpy(results.embedding("one", [5, 6])).double()
    offsets = np.arange(32) - 15.5
    distance = (offsets[:, None] ** 2 + offsets**2).ravel()
    disc = np.zeros(1024, bool)
    disc[np.argsort(distance, kind="stable")[:205]] = True
    images = [crop * kept[..., None] for kept in (mask, ~mask, disc.reshape(32, 32))]
    units = torch.nn.functional.normalize(model.embed(model.preprocess(np.stack(images))).double())
    wanted = (units @ torch.nn.functional.normalize(others).T).mean(dim=1)
    found = [arrays.insertion[4, 1, 0, 0, step], arrays.deletion[4, 1, 0, 0, step]]
    found.append(arrays.insertion[4, 1, axes.controls.index("centre"), 0, step])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
