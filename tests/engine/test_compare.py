"""The pass over pairs: stored values against the definitions, and a folder that loses nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from leamfast import RequestError, open_results
from leamfast.analysis.similarity_tables import similarity_tables
from leamfast.engine.compare import CompareFunction, CompareSettings
from leamfast.engine.compare_run import CompareRequest, run_compare
from leamfast.engine.pair_maps import MapSource
from leamfast.engine.pair_plan import plan_pairs
from leamfast.leam.fused import fuse
from leamfast.store.arrays import THRESHOLDS
from leamfast.store.pair_join import read_pairs, tile_files
from leamfast.store.pairs import KINDS
from leamfast.store.verify import verify
from leamfast_kernels import area_average, emd, support, upsample
from tests.analysis.conftest import write_run
from tests.engine.test_batch import TAP, assert_same, go

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"emd_pairs": 4, "emd_percents": (1, 100), "threads": 1}
FEW = {"emd_percents": (1,), "pairs": 40}
"""For what is about files, not values: as many tiles, made in half of the time."""


def compare(out: Path, note=lambda text: None, **options):
    return run_compare(CompareRequest(out, **{**SMALL, **options}), note)


def compare_few(out: Path, note=lambda text: None, **options):
    return compare(out, note, **{**FEW, **options})


def tables(out: Path, name: str = TAP, model: str = "demo"):
    return {table.kind: table for table in read_pairs(tile_files(out / "pairs"), model, name)}


@pytest.fixture(scope="module")
def each_run(faces, tmp_path_factory) -> Path:
    """A run with maps of single references, compared. Not to be changed."""
    out = tmp_path_factory.mktemp("each") / "out"
    go(faces, out, references="each", limit_identities=5)
    compare(out)
    return out


@pytest.fixture(scope="module")
def mean_run(faces, tmp_path_factory) -> Path:
    """A run with two models and mean references, compared. Not to be changed."""
    out = tmp_path_factory.mktemp("mean") / "out"
    go(faces, out, model=("demo=random:0", "other:=demo=random:1"), limit_identities=5)
    compare(out)
    return out


@pytest.fixture(scope="module")
def few_run(faces, tmp_path_factory) -> Path:
    """As `each_run`, of fewer people and pairs in as many parts and tiles. Not to be changed."""
    out = tmp_path_factory.mktemp("few") / "out"
    go(faces, out, references="each", limit_identities=3, shard_images=8)
    compare_few(out)
    return out


@pytest.fixture
def copied(few_run, tmp_path) -> Path:
    return Path(shutil.copytree(few_run, tmp_path / "run"))


def as_defined(maps: torch.Tensor, fused: bool, percent: int) -> torch.Tensor:
    """Maps cut or averaged, in float64, by the words of the definition."""
    if percent == 100:
        return area_average(maps, min(28, maps.shape[1])).double()
    pixels = upsample(maps, 112)
    return (pixels * support(maps, [percent], 112)[:, 0]).double()


def coefficient(p: torch.Tensor, q: torch.Tensor) -> float:
    p, q = p / p.sum(), q / q.sum()
    return float((p * q).sqrt().sum())


def stored_maps(results, name, of):
    """All maps of a kind of source, (n, h, w), and whose they are."""
    if name == "fused":
        taps = [stored_maps(results, tap, of) for tap in results.taps("demo")]
        return fuse([maps for maps, *_ in taps], 112), *taps[0][1:]
    layer = results.file[f"model/demo/layer/{name}"]
    group, image, reference = layer, np.arange(len(results)), np.full(len(results), -1)
    if of == "each":
        group = layer["each"]
        image, reference = group["image_row"][...], group["reference_row"][...]
    return torch.from_numpy(group["map"][...].astype(np.float32)), image, reference


@pytest.mark.parametrize("name", [TAP, "conv1", "fused"])
@pytest.mark.parametrize("kind", "ABCD")
def test_values_are_those_of_the_definitions(each_run, name, kind):
    table = tables(each_run, name)[kind]
    with open_results(each_run) as results:
        maps, image, reference = stored_maps(results, name, "each")
        of_rows = stored_maps(results, name, "row")[0].double()
        people = results.identities
    place = {key: n for n, key in enumerate(zip(image.tolist(), reference.tolist(), strict=True))}
    shares = of_rows / of_rows.sum(dim=(1, 2), keepdim=True)
    solved = np.flatnonzero((table.emd_kind != 0).any(axis=(1, 2)))
    chosen = np.union1d(np.random.default_rng(0).integers(len(table), size=4), solved[:2])
    for n in chosen:
        a = place[table.i[n], table.i_ref[n]]
        b = place[table.j[n], table.j_ref[n]]
        two = maps[[a, b]]
        neither = (people != people[image[a]]) & (people != people[image[b]])
        others = shares[neither].mean(dim=0)
        removed = two.double() / two.double().sum(dim=(1, 2), keepdim=True) - others
        for prior, native in enumerate((two, removed.clamp_min(0).float())):
            for t, percent in enumerate(THRESHOLDS):
                p, q = as_defined(native, name == "fused", percent)
                # A pixel at the edge of a support may change sides by rounding where the prior is taken off.
                loose = 1e-5 if prior == 0 else 5e-3
                assert table.bc[n, t, prior] == pytest.approx(coefficient(p, q), abs=loose)
                assert table.grid[t].tolist() == list(p.shape)
                if table.emd_kind[n, t, prior]:
                    wanted = float(emd(p[None], q[None]).value)
                    assert table.emd[n, t, prior] == pytest.approx(wanted, abs=loose)


def test_every_pair_is_there_once(each_run):
    found = {kind: len(table) for kind, table in tables(each_run).items()}
    # 5 people, 4 images each, 3 references an image: 60 maps, 12 of each person.
    assert found == {"A": 60, "B": 30, "C": 5 * (66 - 12 - 6), "D": 10 * 144, "identity": 10}
    table = tables(each_run)["C"]
    assert (table.i != table.j).all()
    with open_results(each_run) as results:
        assert (results.identities[table.i] == results.identities[table.j]).all()


def test_distances_are_solved_for_as_many_as_asked(each_run):
    for table in tables(each_run).values():
        solved = (table.emd_kind != 0).sum(axis=0)
        assert solved[[0, 5]].tolist() == [[4, 4], [4, 4]]
        assert not solved[1:5].any()
        assert np.isfinite(table.bc).all()


def test_identity_maps_are_means_of_their_images(each_run):
    table = tables(each_run)["identity"]
    with open_results(each_run) as results:
        maps = torch.from_numpy(results.map("demo", TAP)).double()
        people = results.identities
    shares = maps / maps.sum(dim=(1, 2), keepdim=True)
    means = torch.stack([shares[people == person].mean(dim=0) for person in range(5)])
    for n in range(len(table)):
        pair = means[[table.i[n], table.j[n]]].float()
        assert table.bc[n, 5, 0] == pytest.approx(coefficient(*as_defined(pair, False, 100)), abs=1e-5)


def test_the_prior_removed_makes_no_difference_out_of_nothing(tmp_path):
    """Maps of 20 people that have nothing to do with them: C and D are alike, with the prior and without."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 4)
    differences = []
    for n in range(5):
        run = write_run(tmp_path / str(n), people, rng.exponential(size=(80, 28, 28)))
        settings = CompareSettings(run, 0, (), 0.01, "cpu", 1, "none", False, "")
        function = CompareFunction(settings)
        with open_results(run) as results:
            tiles = plan_pairs(results, settings, ("C", "D"), None, 0)
        made = {tile.pairs.kind: function(tile)[0] for tile in tiles if tile.name == "a"}
        function.close()
        whole = {kind: table.bc[:, 5] for kind, table in made.items()}
        differences.append(whole["C"].mean(axis=0) - whole["D"].mean(axis=0))
    # With the other person of a pair left in the mean, it was 0.0105 in runs like these.
    assert np.abs(np.mean(differences, axis=0)).max() < 0.003


def test_two_models_are_compared_image_by_image(mean_run):
    table = tables(mean_run)["cross"]
    assert table.other_model == "other"
    assert table.i.tolist() == table.j.tolist() == list(range(20))
    with open_results(mean_run) as results:
        for t, percent in ((0, 1), (5, 100)):
            two = [torch.from_numpy(results.map(model, TAP, [3])) for model in ("demo", "other")]
            p, q = (upsample(m, 112) for m in two)
            if percent == 100:
                p, q = (area_average(m, 28) for m in (p, q))
            else:
                p, q = (
                    m * support(native, [percent], 112)[:, 0] for m, native in zip((p, q), two, strict=True)
                )
            assert table.bc[3, t, 0] == pytest.approx(coefficient(p.double(), q.double()), abs=1e-5)
    assert set(tables(mean_run, "fused")) == {"C", "D", "identity", "cross"}
    assert "cross" not in tables(mean_run, model="other")


ANY_SIZE = """
from collections import OrderedDict

import torch
from torch import nn

def make():
    torch.manual_seed(0)
    rest = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 16))
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 3, 2, 1), rest=rest))
"""


def test_models_with_other_crops_meet_in_one_frame(faces, tmp_path, monkeypatch):
    """Crops of 112 and of 56 pixels: the same place of the face lies at the same place of the frame."""
    (tmp_path / "halved.py").write_text(ANY_SIZE)
    monkeypatch.syspath_prepend(tmp_path)
    half = {"size": 56, "channels": "rgb", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    out = tmp_path / "out"
    go(
        faces, out, model=("demo=random:0", "halved:make"), layers=("conv1",), limit_identities=2,
        trust_code=True, preprocessing={"*": half},
    )  # fmt: skip
    compare(out, kinds=("cross",))
    table = tables(out, "conv1")["cross"]
    assert table.grid.tolist() == [[112, 112]] * 5 + [[28, 28]]
    with open_results(out) as results:
        one, two = (torch.from_numpy(results.map(model, "conv1", [1])) for model in ("demo", "make"))
        # 28 cells of 2 pixels, carried to 112: about the corner of the first pixel, or about its centre as
        # the five points are.
        for aligned, offset in (("none", 1.5), ("paper", 1.5), ("arcface", 1.0)):
            source = MapSource(results, "make", "conv1", "row", "cpu", aligned)
            assert source.view.centres == ((offset, 4.0), (offset, 4.0))
    framed = [area_average(upsample(maps, 112), 28).double() for maps in (one, two)]
    assert table.bc[1, 5, 0] == pytest.approx(coefficient(*framed), abs=1e-4)


def test_mean_references_have_no_pairs_of_references(mean_run, tmp_path):
    run = Path(shutil.copytree(mean_run, tmp_path / "run"))
    report = compare(run)
    assert set(report.pairs) == {"C", "D", "identity", "cross"}
    assert "--references each" in report.without_references
    assert not compare(run, kinds=("C",)).without_references


def test_mean_map_compares_its_references_before_it_forgets_them(faces, each_run, tmp_path):
    out = tmp_path / "out"
    go(faces, out, references="mean-map", limit_identities=5)
    report = compare(out)
    assert not report.without_references
    assert verify(out) == []
    for name in (TAP, "fused"):
        mine, theirs = tables(out, name), tables(each_run, name)
        for kind in "AB":
            order = [np.lexsort((t.j_ref, t.i_ref, t.j, t.i)) for t in (mine[kind], theirs[kind])]
            for column in ("i", "j", "i_ref", "j_ref"):
                one, two = getattr(mine[kind], column)[order[0]], getattr(theirs[kind], column)[order[1]]
                assert one.tolist() == two.tolist()
            one, two = mine[kind].bc[order[0]], theirs[kind].bc[order[1]]
            np.testing.assert_allclose(one[..., 0], two[..., 0], atol=1e-6)
            assert np.isnan(one[..., 1]).all()
            # One distance of each identity, at the smallest support and of whole maps.
            assert (mine[kind].emd_kind != 0).sum(axis=0).tolist() == [[5, 0], *[[0, 0]] * 4, [5, 0]]
            both = (mine[kind].emd_kind[order[0]] != 0) & (theirs[kind].emd_kind[order[1]] != 0)
            ours, others = mine[kind].emd[order[0]], theirs[kind].emd[order[1]]
            np.testing.assert_allclose(ours[both], others[both], atol=1e-6)
    with open_results(out) as results:
        assert results.each("demo", TAP) is None


def test_the_index_holds_all_pairs(each_run):
    with h5py.File(each_run / "index.h5") as index:
        for name, group in ((TAP, f"model/demo/layer/{TAP}/pair"), ("fused", "model/demo/fused/pair")):
            pairs, found = index[group], tables(each_run, name)
            kinds = pairs["kind"].attrs["names"].split(",")
            assert kinds == list(KINDS)
            for kind, table in found.items():
                mine = pairs["kind"][...] == kinds.index(kind)
                for column in ("i", "j", "i_ref", "j_ref", "bc", "emd", "emd_lower", "emd_upper", "emd_kind"):
                    np.testing.assert_array_equal(pairs[column][...][mine], getattr(table, column))
                assert (pairs["grid"][...][mine] == table.grid).all()
            assert (pairs["other_model"][...] == -1).all()
            assert pairs["bc"].dims[2][0][...].tolist() == [b"kept", b"removed"]
    assert verify(each_run) == []


def test_the_index_of_two_models_names_the_second(mean_run):
    with h5py.File(mean_run / "index.h5") as index:
        pairs = index[f"model/demo/layer/{TAP}/pair"]
        cross = pairs["kind"][...] == KINDS.index("cross")
        assert pairs["other_model"].attrs["names"] == "other"
        assert (pairs["other_model"][...][cross] == 0).all()
        assert (pairs["other_model"][...][~cross] == -1).all()


def test_xarray_loads_every_array(each_run, mean_run):
    xarray = pytest.importorskip("xarray")
    for run in (each_run, mean_run):
        with xarray.open_datatree(run / "index.h5", engine="h5netcdf") as tree:
            for node in tree.subtree:
                node.to_dataset().load()
            assert set(tree[f"model/demo/layer/{TAP}/pair/bc"].dims) == {"pair", "threshold", "prior"}


def test_tables_say_what_was_found(each_run):
    found = similarity_tables(each_run)
    row = next(r for r in found.similarity if (r.map, r.kind, r.threshold, r.prior, r.measure)
               == (TAP, "C", 1, "kept", "bc"))  # fmt: skip
    values = tables(each_run)["C"].bc[:, 0, 0]
    assert (row.n, row.missing, row.excluded) == (240, 0, 0)
    assert row.mean == pytest.approx(values.mean(), rel=1e-6)
    distances = [r for r in found.similarity if r.measure == "emd"]
    assert {r.threshold for r in distances if r.n} == {1, 100}
    assert {r.n for r in distances if r.n} == {4}
    assert [v.map for v in found.verdicts] == ["conv1", TAP, "fused"]
    assert all("too few people" in v.sentence for v in found.verdicts)
    assert all(" differ by " in v.sentence for v in found.verdicts)


# -- a folder that loses nothing


def test_a_finished_comparison_is_kept_and_a_missing_tile_made_again(copied, few_run):
    assert (compare_few(copied).tiles, compare_few(copied).skipped) == (0, 15)
    one = next(path for path in (copied / "pairs").glob("*-C-*"))
    one.unlink()
    with pytest.raises(RequestError, match=r"lacks pairs/.*leamfast compare"):
        open_results(copied)
    assert verify(copied)
    assert compare_few(copied).tiles == 1
    assert_same(few_run, copied)


def test_tiles_that_a_killed_comparison_left_are_kept(copied, few_run):
    """The index does not name them yet; half a file lies beside."""
    kept = sorted((copied / "pairs").glob("*-D-*"))[:2]
    before = {path.name: path.stat().st_mtime_ns for path in kept}
    compare_few(copied, overwrite=True, kinds=("A",))
    assert not list((copied / "pairs").glob("*-D-*"))
    for path in kept:
        shutil.copy2(few_run / "pairs" / path.name, path)
    (copied / "pairs/.pairs-demo-x-C-00000.h5.99-0123abcd.tmp").touch()
    report = compare_few(copied)
    assert (report.tiles, report.skipped) == (10, 5)
    after = {path.name: path.stat().st_mtime_ns for path in (copied / "pairs").iterdir()}
    assert {name: after[name] for name in before} == before
    assert not list((copied / "pairs").glob(".*tmp"))
    assert_same(few_run, copied)


def test_a_damaged_tile_is_made_again(copied, few_run):
    path = next(iter((copied / "pairs").glob("*-C-*")))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert any(path.name in problem for problem in verify(copied))
    notes: list[str] = []
    assert compare_few(copied, note=notes.append).tiles == 1
    assert any(path.name in text and "computed again" in text for text in notes)
    assert_same(few_run, copied)
    assert verify(copied) == []


def test_other_settings_are_refused_and_overwritten_on_demand(copied, few_run):
    with pytest.raises(RequestError, match=r"emd_pairs: 4 -> 5.*--overwrite"):
        compare_few(copied, emd_pairs=5)
    assert_same(few_run, copied)
    assert compare_few(copied, emd_pairs=0, kinds=("C", "D"), overwrite=True).tiles == 6
    assert set(tables(copied)) == {"C", "D"}
    assert verify(copied) == []
    assert {row.kind for row in similarity_tables(copied).similarity} == {"C", "D"}
    assert {row.measure for row in similarity_tables(copied).similarity} == {"bc"}


def test_kinds_may_come_one_after_the_other(copied, few_run):
    compare_few(copied, kinds=("C",), overwrite=True)
    report = compare_few(copied)
    assert report.skipped == 3
    assert_same(few_run, copied)


def test_workers_find_the_same(each_run, tmp_path):
    run = Path(shutil.copytree(each_run, tmp_path / "run"))
    compare(run, overwrite=True, workers=2)
    assert_same(each_run, run)


def test_pairs_of_maps_that_were_made_anew_do_not_count(copied, faces):
    (copied / "shards/part-00001.h5").unlink()
    # The part is made again by other settings: what it holds is not what was compared.
    shutil.rmtree(copied / "shards")
    (copied / "run.toml").unlink()
    (copied / "index.h5").unlink()
    shutil.move(copied / "pairs", copied.parent / "pairs")
    shutil.rmtree(copied)
    go(faces, copied, references="each", limit_identities=3, shard_images=8, seed=1)
    shutil.move(copied.parent / "pairs", copied / "pairs")
    assert any("other maps" in problem for problem in verify(copied))
    with pytest.raises(RequestError, match="leamfast compare"):
        similarity_tables(copied)
    with pytest.raises(RequestError, match=r"other settings.*parts"):
        compare_few(copied)


KILLER = """
import os, signal, sys
from pathlib import Path

import ot

import leamfast.store.atomic as atomic
from leamfast.engine.compare_run import CompareRequest, run_compare

real, calls = os.fsync, 0

def compare_until(out, at):
    def fsync(descriptor):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    atomic.os.fsync = fsync
    options = dict(emd_pairs=4, emd_percents=(1,), pairs=40, threads=1, overwrite=True)
    run_compare(CompareRequest(out, **options), print)

for out in map(Path, sys.argv[1:]):
    child = os.fork()
    if child == 0:
        compare_until(out / "run", int(out.name))
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (out / "ended").write_text(str(ended))
"""
WRITES = [1, 2, 3, 4, 8, 33, 34, 35, 36]


@pytest.fixture(scope="module")
def killed(few_run, tmp_path_factory) -> Path:
    """Number of a write -> a comparison killed there, each in a process of its own.

    They are forked off one that has imported all there is to import and has begun no thread yet.
    """
    folder = tmp_path_factory.mktemp("killed")
    for at in WRITES:
        shutil.copytree(few_run, folder / str(at) / "run")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in (".", "kernels", "bench"))}
    subprocess.run([sys.executable, "-c", KILLER, *(folder / str(at) for at in WRITES)], env=env, check=True)
    return folder


@pytest.mark.parametrize("at", WRITES)
def test_kill_at_any_write_and_go_on(killed, few_run, at):
    """Index without pairs, settings, 15 tiles and the index again: two calls each."""
    assert int((killed / str(at) / "ended").read_text()) == -signal.SIGKILL
    run = killed / str(at) / "run"
    open_results(run).close()  # readable at every moment
    compare_few(run)
    assert_same(few_run, run)
    assert verify(run) == []


# -- what may be wrong with a run


def test_zero_maps_and_lonely_images_are_counted(faces, tmp_path):
    data = Path(shutil.copytree(faces, tmp_path / "faces"))
    (data / "manifest.csv").unlink()
    for path in sorted((data / "id0001").glob("*.png"))[1:]:
        path.unlink()
    out = tmp_path / "out"
    go(data, out, shard_images=100)
    with h5py.File(out / "shards/part-00000.h5", "r+") as part:
        rows = part["image/identity"][...]
        part[f"model/demo/layer/{TAP}/map"][len(rows) - 1] = 0
    report = compare(out, emd_pairs=0)
    with open_results(out) as results:
        assert (np.bincount(results.identities) == 1).sum() == 1
    table = tables(out)["D"]
    # A map that is zero although its scale is not, as a damaged part may hold: no value, and it is counted.
    assert np.isnan(table.bc[:, 0, 0]).any()
    assert (table.emd_kind[np.isnan(table.bc)] == 0).all()
    rows = [r for r in similarity_tables(out).similarity if (r.map, r.kind, r.measure) == (TAP, "D", "bc")]
    assert rows[0].missing == np.isnan(table.bc[:, 0, 0]).sum() > 0
    # In three maps, the only image of its identity with 44 of others, and its mean with 11.
    assert report.left_out == {"no map": 3 * (44 + 11)}
    assert rows[0].excluded == 44


def test_one_identity_has_no_pairs_of_two_and_no_prior(faces, tmp_path):
    out = tmp_path / "out"
    go(faces, out, limit_identities=1)
    report = compare(out)
    assert report.pairs["D"] == report.pairs["identity"] == 0
    assert report.pairs["C"] == 3 * 6
    assert np.isnan(tables(out)["C"].bc[..., 1]).all()
    found = similarity_tables(out)
    assert {row.kind for row in found.similarity} == {"C"}
    assert all("there are no pairs of kind D" in v.sentence for v in found.verdicts)


def test_near_duplicates_are_left_out(faces, tmp_path):
    data = Path(shutil.copytree(faces, tmp_path / "faces"))
    (data / "manifest.csv").unlink()
    with Image.open(data / "id0000/000.png") as image:
        image.putpixel((0, 0), (1, 2, 3))
        image.save(data / "id0000/001.png")
    out = tmp_path / "out"
    go(data, out)
    report = compare(out, emd_pairs=0)
    # In each of three maps, pairs of the second of 4 images of its identity and with 44 of others.
    assert report.left_out == {"near-duplicate": 3 * (3 + 44)}
    with open_results(out) as results:
        repeated = np.flatnonzero(results.duplicates("demo") >= 0)
    assert len(repeated)
    for kind in "CD":
        table = tables(out)[kind]
        assert not np.isin(table.i, repeated).any()
        assert not np.isin(table.j, repeated).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ("E",)}, "--kinds must name some of"),
        ({"kinds": ()}, "--kinds must name at least one"),
        ({"pairs": 0}, "--pairs must be at least 1"),
        ({"emd_pairs": -1}, "--emd-pairs must be at least 0"),
        ({"emd_percents": (3,)}, "--emd-percents must name some of"),
        ({"tolerance": 0.0}, "--tolerance must lie"),
        ({"threads": 0}, "--threads must be at least 1"),
        ({"device": "cuda:99"}, "cuda"),
    ],
)
def test_what_cannot_be_asked(each_run, options, words):
    with pytest.raises(RequestError, match=words):
        compare(each_run, **options)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RequestError, match=r"no index\.h5"):
        compare(tmp_path)


def test_a_run_without_one_of_its_parts(copied):
    (copied / "shards/part-00001.h5").unlink()
    with pytest.raises(RequestError, match="lacks shards/part-00001"):
        compare(copied)


def test_similarity_needs_pairs(finished_run):
    with pytest.raises(RequestError, match="leamfast compare"):
        similarity_tables(finished_run)
