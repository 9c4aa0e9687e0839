"""Tiles of compared maps: round trip, damage, and what is put together again."""

import h5py
import numpy as np
import pytest

from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pair_join import read_pairs, tile_files, tile_name
from leamfast.store.pairs import KINDS, PairTable, Tile, read_tile, tile_file, write_tile
from leamfast.store.part import PartError


def make_table(kind="C", n=4, seed=0, **changes):
    rng = np.random.default_rng(seed)
    shape = (n, len(THRESHOLDS), 2)
    emd = rng.random(shape)
    emd[:, 0] = np.nan  # not computed
    how = rng.integers(1, 3, shape).astype(np.uint8)
    how[:, 0] = 0
    wide = 0.004 * (how == 2)
    return PairTable(
        **{
            "model": "m", "tap": "layer1.0.conv1", "kind": kind,
            "i": np.arange(n), "j": np.arange(n) + 1, "i_ref": np.full(n, -1), "j_ref": np.full(n, -1),
            "bc": rng.random(shape).astype(np.float32),
            "emd": emd, "emd_lower": emd - wide, "emd_upper": emd + wide, "emd_kind": how,
            "grid": np.full((len(THRESHOLDS), 2), 28), "excluded": {"near-duplicate": 3, "no map": 1},
            "other_model": "n" if kind == "cross" else "",
        } | changes
    )  # fmt: skip


def assert_same(one, two):
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(two, name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_tile_comes_back_as_it_was_written(tmp_path, kind, n):
    table = make_table(kind, n)
    path = write_tile(tmp_path, table, Tile(2, 7, "sha"))
    assert path.name == f"pairs-m-layer1.0.conv1-{kind}{'-n' if kind == 'cross' else ''}-00002.h5"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back, tile = read_tile(path)
    assert tile == Tile(2, 7, "sha")
    assert_same(back, table)
    with h5py.File(path) as file:
        assert (file["kind"][...] == KINDS.index(kind)).all()
        assert file["kind"].attrs["names"].split(",") == list(KINDS)
        assert file["bc"].attrs["dims"] == "pair,threshold,prior"
        assert file.attrs["rows"] == n


def test_the_same_tile_is_the_same_to_the_byte(tmp_path):
    written = [write_tile(tmp_path, make_table(), Tile(0, 1)).read_bytes() for _ in range(2)]
    assert written[0] == written[1]


@pytest.mark.parametrize("at", [0, 0.1, 0.5, 0.999])
def test_a_truncated_tile_is_named(tmp_path, at):
    path = write_tile(tmp_path, make_table(), Tile(0, 1))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * at)])
    with pytest.raises(PartError, match=path.name):
        read_tile(path)


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path):
    """A byte may stand where nothing is stored; then the values are those that were written."""
    table = make_table()
    path = write_tile(tmp_path, table, Tile(0, 1))
    content = path.read_bytes()
    noticed = 0
    for at in range(0, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            back, _ = read_tile(path)
        except PartError:
            noticed += 1
        else:
            assert_same(back, table)
    assert noticed > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["bc"].__setitem__((0, 0, 0), 0.5), "digest differs"),
        (lambda f: f.attrs.__setitem__("excluded", "{}"), "digest differs"),
        (lambda f: f.attrs.__setitem__("run", "other"), "digest differs"),
        (lambda f: f.attrs.__setitem__("rows", 3), "digest differs"),
        (lambda f: f.attrs.__setitem__("complete", False), "never completed"),
        (lambda f: f.attrs.__setitem__("schema", "leamfast/0"), "schema"),
        (lambda f: f.attrs.__setitem__("thresholds", "1,2"), "thresholds 1,2"),
        (lambda f: f["kind"].__setitem__(0, 3), "another kind"),
        (lambda f: f.__delitem__("emd_upper"), "cannot be read"),
    ],
)
def test_a_changed_tile_is_refused(tmp_path, change, message):
    path = write_tile(tmp_path, make_table(), Tile(0, 1))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(PartError, match=message):
        read_tile(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "E"}, "kind must be one of"),
        ({"other_model": "n"}, "other_model"),
        ({"kind": "cross", "other_model": ""}, "other_model"),
        ({"bc": np.zeros((4, 6))}, "bc must have shape"),
        ({"j": np.zeros(3, int)}, "j must have shape"),
        ({"i": np.full(4, -1)}, "i must be at least 0"),
        ({"i_ref": np.full(4, -2)}, "i_ref must be at least -1"),
        ({"bc": np.full((4, 6, 2), 1.1)}, "bc must lie"),
        ({"emd": np.ones((4, 6, 2))}, "NaN exactly"),
        ({"emd_lower": np.full((4, 6, 2), 2.0)}, "between"),
        ({"emd_upper": np.full((4, 6, 2), np.nan)}, "between"),
        ({"emd_kind": np.full((4, 6, 2), 3, np.uint8)}, "emd_kind must be below"),
    ],
)
def test_tables_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_table(**changes)


def test_tiles_are_put_together_in_their_order(tmp_path):
    tables = [make_table("C", n, seed) for seed, n in enumerate((4, 0, 2))]
    for number in (2, 0, 1):
        write_tile(tmp_path, tables[number], Tile(number, 3, "sha"))
    write_tile(tmp_path, make_table("A", 1), Tile(0, 1, "sha"))
    write_tile(tmp_path, make_table("cross", 2), Tile(0, 1, "sha"))
    write_tile(tmp_path, make_table(tap="layer1.0.conv1-C"), Tile(0, 1))
    write_tile(tmp_path, make_table(model="another"), Tile(0, 1))
    (tmp_path / ".pairs-m-layer1.0.conv1-C-00009.h5.1-00000000.tmp").write_bytes(b"left by a killed process")
    assert len(tile_files(tmp_path)) == 7
    assert {tile_name(path).model for path in tile_files(tmp_path)} == {"m", "another"}
    read = read_pairs(tile_files(tmp_path), "m", "layer1.0.conv1", "sha")
    assert [(table.kind, len(table)) for table in read] == [("A", 1), ("C", 6), ("cross", 2)]
    joined = read[1]
    np.testing.assert_array_equal(joined.bc, np.concatenate([table.bc for table in tables]))
    np.testing.assert_array_equal(joined.j, np.concatenate([table.j for table in tables]))
    assert joined.excluded == {"near-duplicate": 9, "no map": 3}
    assert read_pairs(tile_files(tmp_path), "m", "conv1") == []
    assert tile_files(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("second", "tile", "message"),
    [
        ({}, Tile(1, 3), "1 of 3 tiles are missing"),
        ({}, Tile(2, 4), "is of 4 tiles"),
        ({}, Tile(1, 3, "other"), "another run"),
        ({"grid": np.full((6, 2), 14)}, Tile(1, 3), "another grid"),
    ],
)
def test_tiles_that_do_not_go_together(tmp_path, second, tile, message):
    write_tile(tmp_path, make_table(), Tile(0, 3))
    write_tile(tmp_path, make_table(**second), tile)
    with pytest.raises(PartError, match=message):
        read_pairs(tile_files(tmp_path), "m", "layer1.0.conv1")


def test_tiles_of_another_run_and_copies_are_refused(tmp_path):
    path = write_tile(tmp_path, make_table(), Tile(0, 1, "sha"))
    with pytest.raises(PartError, match="another run"):
        read_pairs(tile_files(tmp_path), "m", "layer1.0.conv1", "new")
    copy = tmp_path / "pairs-m-layer1.0.conv1-C-copy.h5"
    for content, message in ((path.read_bytes(), "is a copy of"), (b"nothing", "not readable")):
        copy.write_bytes(content)
        with pytest.raises(PartError, match=message):
            read_pairs(tile_files(tmp_path), "m", "layer1.0.conv1")


@pytest.mark.parametrize("number", [-1, 2])
def test_tiles_are_numbered_below_their_count(number):
    with pytest.raises(ValueError, match="numbered from 0"):
        Tile(number, 2)


def test_paths_tell_kinds_and_models_apart_and_stay_in_their_folder(tmp_path):
    models = [("m", kind, "n" if kind == "cross" else "") for kind in KINDS] + [("m", "cross", "x")]
    models += [("../m", "C", ""), ("m/../..", "C", ""), (".m", "C", "")]
    paths = {
        tile_file(tmp_path, model, "a/b", kind, other, n) for model, kind, other in models for n in (0, 1)
    }
    assert len(paths) == 20
    assert tile_file(tmp_path, "a", "b-c", "C", "", 0) != tile_file(tmp_path, "a-b", "c", "C", "", 0)
    assert len(tile_file(tmp_path, "m" * 300, "\u9854" * 99, "cross", "n" * 300, 0).name) < 256
    assert {path.resolve().parent for path in paths} == {tmp_path.resolve()}
    assert all(path.name.startswith("pairs-") for path in paths)


def test_the_grid_of_a_tile_without_pairs_is_kept(tmp_path):
    path = write_tile(tmp_path, make_table(n=0, grid=np.full((6, 2), 14)), Tile(0, 1))
    assert (read_tile(path)[0].grid == 14).all()
