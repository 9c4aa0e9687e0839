"""An identity cut into slices: its results are those of the whole one."""

import os
import shutil
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leamfast import open_results
from leamfast.analysis.analyze import analyze_run
from leamfast.engine import batch, reference_pairs, references_pass
from leamfast.engine.batch_run import run_batch
from leamfast.engine.compare_run import CompareRequest, run_compare
from leamfast.store.verify import verify
from tests.engine.test_batch import TAP, arrays, assert_same, failures, go, request

SPLIT = {"shard_images": 5, "split_images": 6, "batch_size": 4, "max_references": 3}
WHOLE = {**SPLIT, "split_images": None}
SLICES, CLOSING = (1, 2, 3), 4
TOLERANCE = {"region_share": 0.03, "bc": 0.03, "emd": 0.01, "emd_lower": 0.01, "emd_upper": 0.01}
"""A rounding error can move a pixel across the border of a support; everything else agrees to 2e-3."""


@pytest.fixture(scope="module", autouse=True)
def _few_distances():
    """Those of whole maps would take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_pairs, "SOLVED", (1,))
        yield


@pytest.fixture(scope="module")
def crowd(faces, tmp_path_factory) -> Path:
    """Two small people, and between them one of 14 images in slices of 4, 5 and 5; not to be changed."""
    data = tmp_path_factory.mktemp("crowd") / "data"
    big = data / "big"
    big.mkdir(parents=True)
    for name, person in (("a", "id0000"), ("z", "id0004")):
        shutil.copytree(faces / person, data / name)
        (data / name / "003.png").unlink()
    pictures = sorted(
        path for person in ("id0001", "id0002", "id0003") for path in (faces / person).glob("*.png")
    )
    for number, path in zip((0, 1, 2, 3, 4, 6, 7, 8, 12, 13), pictures, strict=False):
        shutil.copy(path, big / f"{number:02d}.png")
    (big / "05.png").touch()
    for number in (9, 11):  # pictures of the first slice, twice in the last
        Image.open(big / "02.png").save(big / f"{number:02d}.png", compress_level=number // 4)
    brighter = np.array(Image.open(big / "01.png")).astype(float) * 1.04
    Image.fromarray(brighter.clip(0, 255).astype(np.uint8)).save(big / "10.png")
    return data


@pytest.fixture(scope="module")
def runs(crowd, tmp_path_factory):
    """Policy -> the run with whole identities and the run with slices; not to be changed."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(policy: str) -> tuple[Path, Path]:
        if policy not in made:
            folder = tmp_path_factory.mktemp(policy)
            whole, split = folder / "whole", folder / "split"
            report = go(crowd, whole, **WHOLE, references=policy)
            assert (report.shards, report.images) == (2, 6 + 11)
            report = go(crowd, split, **SPLIT, references=policy)
            assert (report.shards, report.skipped, report.images, report.identities) == (6, 0, 17, 3)
            made[policy] = whole, split
        return made[policy]

    return of


def assert_alike(whole: Path, split: Path) -> None:
    """The same results up to rounding; pairs of references in whatever order."""
    one, two = arrays(whole), arrays(split)
    assert set(one) == set(two)
    for group in {name.rpartition("/")[0] for name in one if "/each_pair/" in name}:
        for found in (one, two):
            columns = [found[f"{group}/{name}"] for name in ("kind", "i", "j", "i_ref", "j_ref")]
            order = np.lexsort(columns)
            for name in list(found):
                if name.startswith(f"{group}/") and len(found[name]) == len(order):
                    found[name] = found[name][order]
    for name, values in one.items():
        if name.startswith("part/") or name.endswith("each_pair"):
            continue
        if values.dtype.kind != "f":
            assert values.tolist() == two[name].tolist(), name
            continue
        tolerance = TOLERANCE.get(name.rpartition("/")[2], 2e-3)
        np.testing.assert_allclose(two[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("policy", ["mean", "each", "mean-map"])
def test_slices_give_the_results_of_the_whole(runs, policy):
    whole, split = runs(policy)
    assert_alike(whole, split)
    assert sorted(failures(split)) == sorted(failures(whole))
    assert verify(split) == []
    stages = {row[0]: row[2] for row in failures(split)}
    assert stages.items() >= {
        "big/05.png": "decode", "big/09.png": "duplicate", "big/11.png": "duplicate", "big/10.png": "pair"
    }.items()  # fmt: skip
    with open_results(split) as results:
        paths = results.text("image/path").tolist()
        assert results.text("identity/name").tolist() == ["a", "big", "z"]
        assert results.file["identity/images"][...].tolist() == [3, 11, 3]
        assert results.identities.tolist() == [0] * 3 + [1] * 11 + [2] * 3
        assert results.duplicates("demo")[paths.index("big/10.png")] == paths.index("big/01.png")
        assert not np.isnan(results.map("demo", TAP)).any()
        if policy == "each":
            each = results.each("demo", TAP)
            slices = np.searchsorted([3, 7, 11, 14], each.image, side="right")
            others = np.searchsorted([3, 7, 11, 14], each.reference, side="right")
            assert (slices != others).sum() > 10
        elif policy == "mean-map":
            pairs = results.each_pairs("demo", TAP)
            big = results.identities[pairs["i"]] == 1
            for kind in (0, 1):
                assert (pairs["emd_kind"][big & (pairs["kind"] == kind), 0] != 0).sum() == 1


def test_both_passes_go_on_in_workers(crowd, runs, tmp_path):
    _, split = runs("each")
    run = Path(shutil.copytree(split, tmp_path / "run"))
    for path in ("shards/part-00003.h5", "shards/part-00004.h5", "references/part-00002.h5", "index.h5"):
        (run / path).unlink()
    (run / "references/.part-00002.h5.99-0123abcd.tmp").touch()
    report = go(crowd, run, **SPLIT, references="each", resume=True, workers=2)
    assert (report.shards, report.skipped) == (2, 4)
    assert_same(split, run)
    assert verify(run) == []
    for path in split.glob("references/*"):
        assert path.read_bytes() == (run / "references" / path.name).read_bytes()


def test_a_slice_or_the_closing_part_that_is_gone_is_made_again(crowd, runs, tmp_path):
    _, split = runs("mean-map")
    run = Path(shutil.copytree(split, tmp_path / "run"))
    shutil.rmtree(run / "references")  # verify does not miss it
    (run / "shards/part-00004.h5").unlink()
    assert verify(run) == ["part-00004.h5 is missing", "5 of 6 shards are whole: go on with --resume"]
    assert go(crowd, run, **SPLIT, references="mean-map", resume=True).shards == 1
    assert not (run / "references").exists()  # the slices are there
    assert_same(split, run)
    (run / "shards/part-00002.h5").unlink()
    assert go(crowd, run, **SPLIT, references="mean-map", resume=True).shards == 2  # and what closes it
    damaged = run / "references/part-00003.h5"
    damaged.write_bytes(damaged.read_bytes()[:-3000] + bytes(3000))
    for number in (*SLICES, CLOSING):  # as if killed between the passes
        (run / f"shards/part-{number:05d}.h5").unlink()
    notes: list[str] = []
    run_batch(request(crowd, run, **SPLIT, references="mean-map", resume=True), notes.append)
    assert any("references/part-00003.h5" in note and "made again" in note for note in notes)
    assert_same(split, run)


def test_other_boundaries_are_another_run(crowd, runs):
    with pytest.raises(Exception, match="shards.boundaries"):
        go(crowd, runs("mean")[1], **{**SPLIT, "split_images": None}, references="mean", resume=True)


def test_an_identity_with_a_slice_that_fails_is_left_out_whole(crowd, runs, tmp_path, monkeypatch):
    real = batch.map_rows

    def fail(program, crops, labels, identities, positions, *rest):
        if 7 in positions and len(positions) > 1:  # only the whole of it
            raise OSError("no luck")
        return real(program, crops, labels, identities, positions, *rest)

    monkeypatch.setattr(batch, "map_rows", fail)
    run = tmp_path / "run"
    report = go(crowd, run, **SPLIT)
    assert (report.shards, report.failed_shards, report.images, report.identities) == (4, 1, 6, 2)
    lost = {row[0]: row[3] for row in failures(run) if row[2] == "compute"}
    assert sorted(lost) == [f"big/{n:02d}.png" for n in range(14)]
    assert lost["big/04.png"] == "OSError: no luck"
    assert lost["big/00.png"] == "shard 2 of its identity: OSError: no luck"
    with open_results(run) as results:
        assert not results.complete
        assert results.text("identity/name")[results.identities].tolist() == ["a"] * 3 + ["z"] * 3
    monkeypatch.setattr(batch, "map_rows", real)
    assert go(crowd, run, **SPLIT, resume=True).failed_shards == 0
    assert_same(runs("mean")[1], run)


def test_a_slice_that_cannot_be_embedded_keeps_its_identity_waiting(crowd, runs, tmp_path, monkeypatch):
    real = references_pass.make_crops

    def fail(shard, *rest):
        if shard.number == 3:
            raise OSError("no luck")
        return real(shard, *rest)

    monkeypatch.setattr(references_pass, "make_crops", fail)
    report = go(crowd, tmp_path / "run", **SPLIT)
    assert (report.shards, report.failed_shards, report.images) == (2, 3, 6)
    reasons = {row[3] for row in failures(tmp_path / "run")}
    why = "OSError: no luck; and so does each of its images alone"
    assert reasons == {f"no references from shard 3: {why}"}
    monkeypatch.setattr(references_pass, "make_crops", real)
    go(crowd, tmp_path / "run", **SPLIT, resume=True)
    assert_same(runs("mean")[1], tmp_path / "run")


def test_ctrl_c_in_the_first_pass_ends_the_run(crowd, runs, tmp_path, monkeypatch):
    real = references_pass.make_crops

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(references_pass, "make_crops", interrupted)
    run = tmp_path / "run"
    report = go(crowd, run, **SPLIT)
    assert (report.interrupted, report.shards, report.images, report.failed_shards) == (True, 0, 0, 0)
    assert [path.name for path in (run / "references").iterdir()] == ["part-00001.h5"]
    monkeypatch.setattr(references_pass, "make_crops", real)
    assert go(crowd, run, **SPLIT, resume=True).shards == 6
    assert_same(runs("mean")[1], run)


def test_a_file_that_changes_between_the_passes_is_noticed(crowd, tmp_path, monkeypatch):
    data = Path(shutil.copytree(crowd / "big", tmp_path / "data/big")).parent
    real = batch.make_crops

    def spoil(shard, *rest):
        (data / "big/06.png").write_bytes(b"")
        return real(shard, *rest)

    monkeypatch.setattr(batch, "make_crops", spoil)
    report = go(data, tmp_path / "run", **SPLIT, layers=("conv1",))
    assert (report.failed_shards, report.images) == (0, 10)  # the rest is computed without it
    (row,) = [row for row in failures(tmp_path / "run") if row[2] == "compute"]
    assert row[0] == "big/06.png"
    assert "a file was changed or could not be read" in row[3]


def test_no_more_than_a_slice_of_crops_is_held(crowd, tmp_path, monkeypatch):
    living: list[weakref.ref] = []
    most: list[int] = []

    def counting(make):
        def counted(*arguments):
            crops = make(*arguments)
            living.append(weakref.ref(crops))
            most.append(sum(len(found.rows) for ref in living if (found := ref()) is not None))
            return crops

        return counted

    for module in (batch, references_pass):
        monkeypatch.setattr(module, "make_crops", counting(module.make_crops))
    go(crowd, tmp_path / "run", **SPLIT, layers=("conv1",))
    assert len(most) == 3 + 5
    assert max(most) == 4  # of 5, one has no picture or two repeat one


@pytest.mark.parametrize("policy", ["mean", "mean-map"])
def test_the_only_usable_image_of_all_slices_is_named_once(crowd, tmp_path, policy):
    data = tmp_path / "data"
    (data / "p").mkdir(parents=True)
    for number in range(4):
        (data / f"p/{number}.png").touch()
    shutil.copy(crowd / "big/00.png", data / "p/3.png")
    report = go(data, tmp_path / "run", references=policy, shard_images=2, split_images=2, layers=("conv1",))
    assert (report.images, report.identities, report.shards) == (1, 1, 3)
    assert [(row[0], row[2]) for row in failures(tmp_path / "run")] == [
        ("p/0.png", "decode"), ("p/1.png", "decode"), ("p/2.png", "decode"), ("p/3.png", "reference"),
    ]  # fmt: skip
    assert verify(tmp_path / "run") == []
    with open_results(tmp_path / "run") as results:
        assert np.isnan(results.map("demo", "conv1")).all()
        assert np.isnan(results.identity_map("demo", "conv1", np.array([0]))).all()


def test_analysis_and_compare_take_a_split_run(runs, tmp_path):
    found = []
    for name, run in zip(("whole", "split"), runs("mean-map"), strict=True):
        copy = Path(shutil.copytree(run, tmp_path / name))
        analysis = analyze_run(copy)
        options = {"emd_pairs": 1, "emd_percents": (1,), "threads": 1, "kinds": ("A", "B")}
        report = run_compare(CompareRequest(copy, **options), lambda text: None)
        found.append((report.pairs, report.left_out, len(analysis.agreement)))
        assert verify(copy) == []
    assert found[0] == found[1]
