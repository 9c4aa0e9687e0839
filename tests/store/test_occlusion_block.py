"""Blocks of occlusion: round trip, damage, and what cannot be written."""

from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest

from leamfast.store.arrays import CHUNK_BYTES
from leamfast.store.occlusion import CONTROLS, DIMS, FILLS, OcclusionArrays
from leamfast.store.occlusion_block import (
    OcclusionBlock,
    block_file,
    block_files,
    block_name,
    missing_blocks,
    read_block,
    write_block,
)
from leamfast.store.part import PartError
from tests.store.conftest import make_arrays, make_axes, make_block

DROP = "model/m/occlusion/n/drop"


def assert_same(one: OcclusionBlock, two: OcclusionBlock) -> None:
    for name in ("number", "count", "first", "rows", "run"):
        assert getattr(one, name) == getattr(two, name)
    assert one.groups.keys() == two.groups.keys()
    for pair, (axes, arrays) in one.groups.items():
        other_axes, others = two.groups[pair]
        assert axes == other_axes
        assert arrays.by_name().keys() == others.by_name().keys()
        for name, values in arrays.by_name().items():
            assert values.dtype == others.by_name()[name].dtype
            assert values.tobytes() == others.by_name()[name].tobytes()
            assert values.shape == others.by_name()[name].shape


@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("steps", [(), (0.0, 10.0, 100.0)])
def test_a_block_comes_back_as_it_was_written(tmp_path, rows, steps):
    block = make_block(2, 7, 30, rows, axes=make_axes(steps=steps))
    path = write_block(tmp_path, block)
    assert path == block_file(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["occlusion-00002.h5"]
    assert_same(read_block(path), block)
    with h5py.File(path) as file:
        assert file[DROP].attrs["dims"] == "row,map,percent,control,fill,seed"
        assert file["model/m/occlusion/n/control"].asstr()[...].tolist() == [
            "own",
            "random-block-4",
            "master-1",
        ]
        assert ("step" in file["model/n/occlusion/m"]) == ("deletion" in file["model/n/occlusion/m"])
        assert file.attrs["complete"]


def test_whole_percents_and_a_single_fill_come_back(tmp_path):
    axes = make_axes(percents=(1, 2), fills=("black",), steps=())
    arrays = make_arrays(axes, 2, psnr=None, ssim=None)
    block = OcclusionBlock(0, 1, 0, 2, "", {("m", "m"): (axes, arrays)})
    assert_same(read_block(write_block(tmp_path, block)), block)


def test_pairs_may_have_axes_of_their_own(tmp_path):
    one, two = make_axes(), make_axes(maps=("conv1",), seeds=(3,))
    groups = {("m", "n"): (one, make_arrays(one, 3)), ("m", "m"): (two, make_arrays(two, 3))}
    block = OcclusionBlock(0, 1, 0, 3, "", groups)
    path = write_block(tmp_path, block)
    assert_same(read_block(path), block)
    assert block_name(path).groups == (("m", "m"), ("m", "n"))


def test_the_same_block_is_the_same_to_the_byte(tmp_path):
    pairs = [("m", "m"), ("m", "n")]
    first = write_block(tmp_path, make_block(pairs=pairs)).read_bytes()
    block = make_block(pairs=pairs)
    turned = replace(block, groups=dict(reversed(list(block.groups.items()))))
    digest = block_name(block_file(tmp_path, 0)).digest
    assert write_block(tmp_path, block).read_bytes() == first
    assert block_name(write_block(tmp_path, turned)).digest == digest


def test_what_a_block_says_of_itself(tmp_path):
    path = write_block(tmp_path, make_block(1, 3, 5, 4, "run"))
    name = block_name(path)
    assert (name.number, name.count, name.first, name.rows, name.run) == (1, 3, 5, 4, "run")
    assert name.groups == (("m", "m"), ("m", "n"), ("n", "m"))
    same = block_name(write_block(tmp_path, make_block(2, 3, 9, 1, "run")))
    assert (same.layout, same.digest != name.digest) == (name.layout, True)
    for changes in ({"seeds": (7, 0)}, {"steps": ()}, {"maps": ("fused", "a.b")}):
        other = block_name(write_block(tmp_path, make_block(0, 3, axes=make_axes(**changes))))
        assert other.layout != name.layout
    assert missing_blocks([name]) == [0, 2]
    assert missing_blocks([name, same]) == [0]
    assert missing_blocks([]) == []


def test_drops_lie_in_chunks_of_some_rows(tmp_path):
    axes = make_axes(maps=tuple(f"layer{n}" for n in range(8)), controls=CONTROLS, fills=FILLS, steps=())
    block = make_block(rows=20, pairs=[("m", "n")], axes=axes)
    with h5py.File(write_block(tmp_path, block)) as file:
        rows, *inner = file[DROP].chunks
        assert (1 < rows < 20, tuple(inner)) == (True, file[DROP].shape[1:])
        assert rows * file[DROP][0].nbytes <= CHUNK_BYTES


@pytest.mark.parametrize("source", ["drop", "map", "seed", "m-1.x", "Ü", "a,b", "a b"])
def test_odd_names_of_models_and_taps(tmp_path, source):
    axes = make_axes(maps=("a/b", "a,b", "../x", "fused", "顔", ""))
    block = make_block(pairs=[("occlusion", source), (source, source)], axes=axes)
    assert_same(read_block(write_block(tmp_path, block)), block)


@pytest.mark.parametrize("at", [0, 0.1, 0.5, 0.999])
def test_a_truncated_block_is_named(tmp_path, at):
    path = write_block(tmp_path, make_block())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    with pytest.raises(PartError, match=path.name):
        read_block(path)


def test_every_damaged_byte_is_noticed(tmp_path):
    path = write_block(tmp_path, make_block(rows=2, pairs=[("m", "n")]))
    content = path.read_bytes()
    sealed = range(0, len(content) - 100, 997)  # behind it stands the seal itself
    for at in sealed:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(PartError, match="holds other values than were written"):
            read_block(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[DROP].__setitem__((0, 0, 0, 0, 0, 0), 0.5), "digest differs"),
        (lambda f: f["model/m/occlusion/n/percent"].__setitem__(0, 0.5), "digest differs"),
        (lambda f: f["model/m/occlusion/n/seed"].__setitem__(0, 3), "digest differs"),
        (lambda f: f.attrs.__setitem__("run", "other"), "digest differs"),
        (lambda f: f.attrs.__setitem__("first", 3), "digest differs"),
        (lambda f: f.attrs.__setitem__("blocks", 3), "digest differs"),
        (lambda f: f.attrs.__setitem__("layout", "x"), "digest differs"),
        (lambda f: f.__delitem__("model/n"), "digest differs"),
        (lambda f: f.attrs.__setitem__("rows", 2), "must have shape"),
        (lambda f: f.attrs.__setitem__("block", 2), "is a copy of occlusion-00002.h5, or was renamed"),
        (lambda f: f.attrs.__setitem__("blocks", 0), "block 0 of 0"),
        (lambda f: f.attrs.__setitem__("complete", False), "never completed"),
        (lambda f: f.attrs.__setitem__("schema", "leamfast/0"), "schema"),
        (lambda f: f.attrs.__delitem__("run"), "no block of occlusion"),
        (lambda f: f.__delitem__("model"), "no block of occlusion"),
        (lambda f: f.__delitem__(DROP), "cannot be read"),
        (lambda f: f.__delitem__("model/m/occlusion/n/fill"), "cannot be read"),
        (lambda f: f.__delitem__("model/m/occlusion/n/insertion"), "both be there"),
        (lambda f: f["model/m/occlusion/n/cosine"].__setitem__(0, 2), "cosine must be NaN or from"),
    ],
)
def test_a_changed_block_is_refused(tmp_path, change, message):
    path = write_block(tmp_path, make_block())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(PartError, match=message):
        read_block(path)


def test_a_renamed_block_is_refused(tmp_path):
    path = write_block(tmp_path, make_block(0, 2))
    for name in ("occlusion-00001.h5", "occlusion-copy.h5"):
        copy = tmp_path / name
        copy.write_bytes(path.read_bytes())
        for read in (block_name, read_block):
            with pytest.raises(PartError, match=f"{name} is a copy of occlusion-00000.h5"):
                read(copy)
    assert len(block_files(tmp_path)) == 3
    assert block_files(tmp_path / "none") == []
    with pytest.raises(PartError, match="occlusion-00005.h5 is missing"):
        read_block(block_file(tmp_path, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 2}, "one of 2 numbered from 0, got 2"),
        ({"number": -1}, "numbered from 0"),
        ({"first": -1}, "must not be negative"),
        ({"rows": 4}, r"drop must have shape \(4,.*evaluated m, source m"),
        ({"groups": {}}, "at least one"),
        *(({"name": name}, "model names must not") for name in ("", "a/b", ".", "..")),
    ],
)
def test_blocks_that_cannot_be_are_refused(changes, message):
    block = make_block(0, 2)
    if "name" in changes:
        changes = {"groups": {("m", changes["name"]): block.groups["m", "m"]}}
    with pytest.raises(ValueError, match=message):
        replace(block, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": ()}, "maps must name at least one"),
        ({"seeds": ()}, "seeds must name at least one"),
        ({"seeds": (1, 1)}, "repeat"),
        ({"maps": ("a", "a")}, "repeat"),
        ({"percents": (2, 1)}, "percents must ascend"),
        ({"percents": (0, 1)}, "percents must ascend"),
        ({"percents": (1, 101)}, "percents must ascend"),
        ({"percents": (1, float("nan"))}, "percents must ascend"),
        ({"steps": (0, 50, 20)}, "steps must ascend"),
        ({"steps": (0, 101)}, "steps must ascend"),
        ({"controls": ("own", "else")}, "controls must be of .* got 'else'"),
        ({"controls": ("random", "own")}, "begin with 'own', got 'random'"),
        ({"fills": ("white",)}, "fills must be of .* got 'white'"),
        ({"seeds": (-1,)}, "seeds must be"),
        ({"seeds": (2**63,)}, "seeds must be"),
    ],
)
def test_axes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_axes(**changes)


def changed(name, value):
    """One value of an array, of its first row, replaced."""

    def change(arrays):
        values = arrays[name].copy()
        values[(0,) * values.ndim] = value
        return {name: values}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("drop", 2.1), "drop must be NaN or from -2.0001 to 2.0001, got 2.1"),
        (changed("drop", np.inf), "drop must be NaN or"),
        (changed("drop", -np.inf), "drop must be NaN or"),
        (changed("references", -1), "references must be from 0"),
        (changed("references", 0), "drop must be NaN for rows without references"),
        (changed("cosine", -1.1), "cosine must be"),
        (changed("support_size", -1), "support_size must be"),
        (changed("support_size", np.inf), "support_size must be"),
        (changed("psnr", -1), "psnr must be"),
        (changed("ssim", 1.1), "ssim must be"),
        (changed("deletion", 1.1), "deletion must be"),
        (changed("insertion", -1.1), "insertion must be"),
        (lambda a: {"drop": a["drop"].astype(np.float64)}, "drop must be float32, got float64"),
        (lambda a: {"references": a["references"].astype(np.int64)}, "references must be int32"),
        (lambda a: {"cosine": a["cosine"][:2]}, r"cosine must have shape \(3,\), got \(2,\)"),
        (lambda a: {"drop": a["drop"][:, :1]}, "drop must have shape"),
        (lambda a: {"psnr": a["psnr"][..., :1]}, "psnr must have shape"),
        (lambda a: {"psnr": None}, "psnr and ssim must both"),
        (lambda a: {"deletion": None}, "deletion and insertion must both"),
        (lambda a: {"deletion": None, "insertion": None}, "where there are steps"),
    ],
)
def test_arrays_that_cannot_be_are_refused(change, message):
    block = make_block(pairs=[("m", "m")])
    axes, arrays = block.groups["m", "m"]
    arrays = replace(arrays, **change(arrays.by_name()))
    with pytest.raises(ValueError, match=message):
        replace(block, groups={("m", "m"): (axes, arrays)})


@pytest.mark.parametrize(
    ("name", "value"),
    [("drop", np.nan), ("drop", -2.00005), ("support_size", np.nan), ("psnr", np.inf), ("cosine", 1.00001)],
)
def test_values_that_may_be(name, value):
    block = make_block(pairs=[("m", "m")])
    axes, arrays = block.groups["m", "m"]
    arrays = replace(arrays, **changed(name, value)(arrays.by_name()))
    replace(block, groups={("m", "m"): (axes, arrays)})


def test_every_array_and_every_axis_has_a_place():
    assert set(DIMS) == set(OcclusionArrays.__dataclass_fields__)
    assert {dim for dims in DIMS.values() for dim in dims} - {"row"} == {
        name.removesuffix("s") for name in asdict(make_axes())
    }
