"""Blocks of occlusion in the index of a run: joined, verified and read."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from leamfast import RequestError, open_results
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import Array
from leamfast.store.index import write_index
from leamfast.store.occlusion import DIMS
from leamfast.store.occlusion_block import OcclusionBlock, block_file, write_block
from leamfast.store.occlusion_index import join_occlusion, occlusion_sha256
from leamfast.store.pair_index import parts_sha256
from leamfast.store.part import open_part, read_part, write_part
from leamfast.store.run_folder import RunFolder
from leamfast.store.settings import read_frozen, settings_sha256, write_settings
from leamfast.store.verify import _content, verify
from tests.store.conftest import make_arrays, make_axes, make_block, make_part
from tests.store.test_index import assert_xarray_agrees

ROWS = (3, 0, 2)
"""Of the blocks, which do not lie as the parts do."""

MODELS = ("m", "drop")
PAIRS = (("drop", "m"), ("m", "drop"), ("m", "m"))


def write_parts(root: Path, rows: tuple[int, ...] = (2, 3), points: bool = True) -> None:
    """A run of two models, one of which has the name of an array."""
    (root / "shards").mkdir(parents=True)
    frozen = {"threads": 1, "shards": {"count": len(rows)}}
    write_settings(root / "run.toml", {}, frozen)
    for shard, n in enumerate(rows):
        part = make_part(shard, n, 2)
        arrays = {
            name.replace("/m/", f"/{model}/"): array
            for model in MODELS
            for name, array in part.arrays.items()
        }
        numbers = np.arange(6.0 * n).reshape(n, 2, 3) + 100 * shard
        arrays["crop/8/transform"] = Array(numbers, ("row", "affine_y", "affine_x"))
        if points:
            arrays["image/points"] = Array(np.full((n, 5, 2), shard, np.float32), ("row", "point", "xy"))
        groups = {f"model/{model}": {"taps": "a.b", "input_size": 8} for model in MODELS}
        made = replace(part, arrays=arrays, groups=groups, run=settings_sha256(frozen))
        write_part(RunFolder(root).part(shard), made)


def parts(root: Path) -> list[Path]:
    return sorted((root / "shards").glob("*.h5"))


def parts_of(root: Path) -> str:
    digests = []
    for path in parts(root):
        with open_part(path) as file:
            digests.append(str(file.attrs["digest"]))
    return parts_sha256(digests)


def index(root: Path) -> Path:
    write_index(root, parts(root), len(parts(root)), REGIONS)
    return root / "index.h5"


def make_blocks(root: Path, **changes) -> list[OcclusionBlock]:
    """Blocks over all rows, of the settings that lie in the folder."""
    run = occlusion_sha256(RunFolder(root), parts_of(root))
    starts = np.cumsum((0, *ROWS)).tolist()
    about = {"pairs": PAIRS, "run": run, **changes}
    return [make_block(k, len(ROWS), starts[k], n, **about) for k, n in enumerate(ROWS)]


def occlude(root: Path, **changes) -> list[OcclusionBlock]:
    folder = RunFolder(root)
    folder.occlusion.mkdir(exist_ok=True)
    write_settings(folder.occlude_settings, {}, {"parts": parts_of(root), "percents": [1.0]})
    blocks = make_blocks(root, **changes)
    for block in reversed(blocks):
        write_block(folder.occlusion, block)
    return blocks


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[OcclusionBlock]]:
    """A run with occlusion. Not to be changed."""
    root = tmp_path_factory.mktemp("occluded") / "run"
    write_parts(root)
    blocks = occlude(root)
    index(root)
    return root, blocks


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "run"))


def joined(blocks: list[OcclusionBlock], pair: tuple[str, str], name: str) -> np.ndarray:
    return np.concatenate([getattr(block.groups[pair][1], name) for block in blocks])


def test_blocks_are_joined_in_their_order(made):
    root, blocks = made
    with h5py.File(root / "index.h5") as file, open_results(root) as results:
        assert results.occluded == PAIRS
        for pair in PAIRS:
            group = file[f"model/{pair[0]}/occlusion/{pair[1]}"]
            assert results.occlusion_axes(*pair) == make_axes()
            arrays = results.occlusion(*pair).by_name()
            assert arrays.keys() == DIMS.keys()
            for name, dims in DIMS.items():
                wanted = joined(blocks, pair, name)
                assert group[name].is_virtual
                assert group[name].attrs["dims"] == ",".join(dims)
                assert arrays[name].dtype == group[name].dtype == wanted.dtype
                np.testing.assert_array_equal(arrays[name], wanted)
                assert [dim[0].name for dim in group[name].dims] == [
                    "/row" if dim == "row" else f"{group.name}/{dim}" for dim in dims
                ]
            assert not group["map"].is_virtual
        assert file["occlusion_block/path"].asstr()[...].tolist() == [
            f"occlusion/occlusion-0000{n}.h5" for n in range(3)
        ]
        assert file["occlusion_block/rows"][...].tolist() == list(ROWS)


def test_a_slice_of_rows_is_read(made):
    root, blocks = made
    with open_results(root) as results:
        found = results.occlusion("m", "drop", slice(2, 4))
        for name, values in found.by_name().items():
            np.testing.assert_array_equal(values, joined(blocks, ("m", "drop"), name)[2:4])
        assert len(results.occlusion("m", "drop", slice(0, 0)).drop) == 0


def test_xarray_reads_every_array_as_h5py_does(made):
    assert assert_xarray_agrees(made[0] / "index.h5") > 14 * len(PAIRS)


def test_a_run_without_rows_or_curves(tmp_path):
    write_parts(tmp_path / "run", (0,))
    axes = make_axes(steps=(), fills=("mean",))
    folder = RunFolder(tmp_path / "run")
    folder.occlusion.mkdir()
    write_settings(folder.occlude_settings, {}, {"parts": parts_of(folder.root)})
    sha = occlusion_sha256(folder, parts_of(folder.root))
    arrays = make_arrays(axes, 0, psnr=None, ssim=None)
    write_block(folder.occlusion, OcclusionBlock(0, 1, 0, 0, sha, {("m", "m"): (axes, arrays)}))
    assert_xarray_agrees(index(folder.root))
    assert verify(folder.root) == []
    with open_results(folder.root) as results:
        assert results.occlusion_axes("m", "m") == axes
        assert results.occlusion("m", "m").by_name().keys() == arrays.by_name().keys()
        assert results.occlusion("m", "m").drop.shape == arrays.drop.shape


def test_the_index_is_a_pure_function_of_parts_and_blocks(run):
    before = _content((run / "index.h5").read_bytes())
    assert _content(index(run).read_bytes()) == before is not None
    shutil.rmtree(run / "occlusion")
    without = index(run)
    with h5py.File(without) as file:
        assert "occlusion_block" not in file
        assert "occlusion" not in file["model/m"]
    occlude(run)
    assert _content(index(run).read_bytes()) == before


def test_the_folder_can_be_moved(run):
    moved = run.rename(run.with_name("moved"))
    with open_results(moved) as results:
        assert (results.occlusion("m", "m").references >= 0).all()


# -- what is wrong is named, and left out of the index


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at = content.index(file["model/m/occlusion/m/drop"][0].tobytes()[:64])
    content[at] ^= 1
    path.write_bytes(content)


def rename(path: Path) -> None:
    path.rename(path.with_name("occlusion-00009.h5"))


def spoil(path: Path) -> None:
    path.write_bytes(b"nothing")


def open_up(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message", "there"),
    [
        (remove, "1 of 3 blocks of occlusion are missing, beginning with {}", False),
        (cut, "{} is not readable as HDF5", False),
        (spoil, "{} is not readable as HDF5", False),
        (open_up, "{} was never completed", False),
        (rename, "occlusion-00009.h5 is a copy of {}, or was renamed: remove it", False),
        (flip, "{} holds other values than were written", True),
    ],
)
def test_a_block_that_is_missing_or_damaged(run, number, damage, message, there):
    path = block_file(run / "occlusion", number)
    damage(path)
    problems = verify(run)
    named = [problem for problem in problems if message.format(path.name) in problem]
    assert len(named) == 1
    assert named[0].endswith(f"run `leamfast occlude {run}` again")
    assert any(problem.startswith("index.h5 is not what") for problem in problems) != there
    with h5py.File(index(run)) as file:
        assert ("occlusion_block" in file) == there
    assert any(message.format(path.name) in problem for problem in verify(run))
    assert not any("index.h5" in problem for problem in verify(run))


def other_run(root):
    write_block(root / "occlusion", make_blocks(root, run="other")[0])


def other_axes(root):
    write_block(root / "occlusion", make_blocks(root, axes=make_axes(seeds=(0, 8)))[1])


def other_pairs(root):
    write_block(root / "occlusion", make_blocks(root, pairs=PAIRS[:2])[2])


def other_arrays(root):
    block = make_blocks(root)[0]
    groups = {
        pair: (axes, replace(arrays, psnr=None, ssim=None)) for pair, (axes, arrays) in block.groups.items()
    }
    write_block(root / "occlusion", replace(block, groups=groups))


def other_count(root):
    write_block(root / "occlusion", replace(make_blocks(root)[0], count=4))


def other_start(root):
    write_block(root / "occlusion", replace(make_blocks(root)[2], first=4))


def other_rows(root):
    last = make_block(2, 3, 3, 4, make_blocks(root)[0].run, PAIRS)
    write_block(root / "occlusion", last)


def other_models(root):
    occlude(root, pairs=(("m", "m"), ("m", "stranger")))


def other_settings(root):
    write_settings(root / "occlusion" / "occlude.toml", {}, {"parts": parts_of(root), "percents": [2.0]})


def other_parts(root):
    write_settings(root / "occlusion" / "occlude.toml", {}, {"parts": "others", "percents": [1.0]})


def no_settings(root):
    (root / "occlusion" / "occlude.toml").unlink()


def broken_settings(root):
    (root / "occlusion" / "occlude.toml").write_text("no toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_run, "occlusion-00000.h5 was made with other settings"),
        (other_axes, "occlusion-00001.h5 has other models, axes or arrays than occlusion-00000.h5"),
        (other_pairs, "occlusion-00002.h5 has other models, axes or arrays than occlusion-00000.h5"),
        (other_arrays, "occlusion-00001.h5 has other models, axes or arrays than occlusion-00000.h5"),
        (other_count, "occlusion-00001.h5 is of 3 blocks where occlusion-00000.h5 is of 4"),
        (other_start, "occlusion-00002.h5 begins at row 4 where row 3 is next"),
        (other_rows, "blocks of occlusion have 7 rows where the run has 5"),
        (other_models, "occlusion-00000.h5 is of stranger, which is no model of the run"),
        (other_settings, "occlusion-00000.h5 was made with other settings"),
        (other_parts, "occlusion is of other maps than the run has now"),
        (no_settings, "occlusion is of other maps than the run has now"),
        (broken_settings, "occlusion is of other maps than the run has now"),
    ],
)
def test_blocks_that_do_not_go_together(run, change, message):
    change(run)
    assert sum(message in problem for problem in verify(run)) == 1
    with h5py.File(index(run)) as file:
        assert "occlusion_block" not in file
    problems = verify(run)
    assert any(problem.startswith(message) for problem in problems)
    assert all(f"run `leamfast occlude {run}` again" in problem for problem in problems)


def test_a_stray_copy_is_named_and_does_no_harm(run):
    shutil.copy(block_file(run / "occlusion", 0), run / "occlusion" / "occlusion-copy.h5")
    (problem,) = verify(run)
    assert problem.startswith("occlusion-copy.h5 is a copy of occlusion-00000.h5")
    with h5py.File(index(run)) as file:
        assert "occlusion_block" in file


def test_a_first_block_whose_axes_cannot_be_read_is_left_out(run):
    with h5py.File(block_file(run / "occlusion", 0), "r+") as file:
        del file["model/m/occlusion/m/map"]
    with h5py.File(index(run)) as file:
        assert "occlusion_block" not in file
        assert "occlusion" not in file["model/m"]
    with h5py.File(block_file(run / "occlusion", 0), "r+") as file:
        file["model/m/occlusion/m/map"] = np.array(["a.b"], dtype=object)
    with h5py.File(index(run)) as file:
        assert "occlusion_block" not in file


def test_a_whole_run_has_no_problems(run):
    assert verify(run) == []
    for path in (run / "occlusion").glob("*.h5"):
        path.unlink()
    index(run)
    (problem,) = verify(run)
    assert problem.startswith("no block of occlusion is there, though its settings are")
    shutil.rmtree(run / "occlusion")
    assert verify(run) == []


def test_an_index_of_other_values_is_a_problem(run):
    block = make_blocks(run)[0]
    others = make_block(5, 9, rows=block.rows, pairs=PAIRS).groups
    write_block(run / "occlusion", replace(block, groups=others))
    assert verify(run) == [
        "index.h5 is not what the parts make: go on with --resume, or run `leamfast occlude` again"
    ]


def test_parts_that_were_made_again_have_no_occlusion(run):
    part = read_part(parts(run)[0])
    part.arrays["model/m/embedding"].values[0] += 1
    write_part(parts(run)[0], part)
    with h5py.File(index(run)) as file:
        assert "occlusion_block" not in file
    assert any("occlusion is of other maps than the run has now" in problem for problem in verify(run))
    assert any("--overwrite" in problem for problem in verify(run))


def test_an_index_without_occlusion_is_not_touched(run):
    with h5py.File("none", "w", driver="core", backing_store=False) as file:
        join_occlusion(file, RunFolder(run), "other parts")
        assert not file.keys()
    assert occlusion_sha256(RunFolder(run / "nowhere"), "x") is None
    assert occlusion_sha256(RunFolder(run), parts_of(run)) == settings_sha256(
        {"parts": parts_of(run), "percents": [1.0]}
    )


# -- reading


def test_a_missing_block_is_an_error_unless_it_is_not_asked_for(run):
    block_file(run / "occlusion", 1).unlink()
    with pytest.raises(RequestError, match=r"lacks occlusion/occlusion-00001.h5: run `leamfast occlude"):
        open_results(run)
    with open_results(run, with_pairs=False) as results:
        assert results.occluded == ()
        with pytest.raises(RequestError, match="holds no occlusion"):
            results.occlusion("m", "m")


@pytest.mark.parametrize("damage", [spoil, cut])
def test_a_block_that_cannot_be_opened_is_not_read_as_missing_values(run, damage):
    damage(block_file(run / "occlusion", 2))
    with open_results(run) as results:
        assert len(results.occlusion("m", "m", slice(0, 3)).drop) == 3
        with pytest.raises(RequestError, match="holds a block of occlusion that cannot be read .*occlude"):
            results.occlusion("m", "m")


def test_a_block_that_goes_while_results_are_open_is_not_read_as_missing_values(run):
    with open_results(run) as results:
        block_file(run / "occlusion", 2).unlink()
        with pytest.raises(RequestError, match="that cannot be read: run `leamfast occlude"):
            results.occlusion("m", "m")


def test_models_that_there_are_not_are_named(run, made):
    with open_results(run) as results:
        for read in (results.occlusion, results.occlusion_axes):
            with pytest.raises(
                RequestError, match="drop by maps of drop is not in .*: that of drop by maps of m"
            ):
                read("drop", "drop")
    shutil.rmtree(run / "occlusion")
    index(run)
    with open_results(run) as results:
        assert results.occluded == ()
        with pytest.raises(RequestError, match="holds no occlusion of its images.* run `leamfast occlude"):
            results.occlusion_axes("m", "m")


def test_transforms_and_points_of_rows(run, tmp_path):
    with open_results(run) as results:
        found = results.transforms("m")
        assert (found.shape, found.dtype) == ((5, 2, 3), np.float64)
        assert found[:, 0, 0].tolist() == [0, 6, 100, 106, 112]
        assert results.transforms("drop", [1, 4])[:, 1, 2].tolist() == [11, 117]
        points = results.points()
        assert (points.shape, points.dtype) == ((5, 5, 2), np.float64)
        assert results.points(slice(1, 3))[:, 0, 0].tolist() == [0, 1]
        with pytest.raises(RequestError, match="'x' is not in"):
            results.transforms("x")
    write_parts(tmp_path / "plain", points=False)
    index(tmp_path / "plain")
    with open_results(tmp_path / "plain") as results:
        assert results.points() is None


def test_what_killed_workers_leave_is_removed(run):
    names = [".occlusion-00001.h5.99-0123abcd.tmp", ".occlude.toml.99-0123abcd.tmp"]
    left = [run / "occlusion" / name for name in names]
    [path.touch() for path in left]
    assert sum("left over from a killed run" in problem for problem in verify(run)) == 2
    with RunFolder(run).locked():
        assert not any(path.exists() for path in left)
    assert verify(run) == []
    assert read_frozen(run / "run.toml")["threads"] == 1
