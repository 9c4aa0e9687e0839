"""A whole occlusion pass: what cannot be asked, and a folder that loses nothing."""

import errno
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from leamfast import RequestError, open_results
from leamfast.analysis.occlusion_tables import occlusion_tables, write_occlusion
from leamfast.engine import occlude as engine_occlude
from leamfast.engine import occlude_plan
from leamfast.engine.occlude import BlockSink, OccludeFunction
from leamfast.store import atomic
from leamfast.store.run_folder import RunFolder
from leamfast.store.verify import verify
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
from tests.engine.test_batch import assert_same


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


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def blocks(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "occlusion").glob("*.h5"))}


# -- what cannot be asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"percents": ()}, "--percents must name percents above 0 and below 100, got none"),
        ({"percents": (0.0, 5.0)}, "--percents must name percents above 0 and below 100, got 0,5"),
        ({"percents": (100.0,)}, "--percents must name percents above 0 and below 100, got 100"),
        ({"percents": (float("nan"),)}, "--percents must name percents above 0 and below 100, got nan"),
        ({"fills": ()}, "--fills must name at least one of black"),
        ({"fills": ("red",)}, "--fills must name some of black, mean, blur, noise, inpaint, got 'red'"),
        ({"controls": ("chance",)}, "--controls must name some of own, random, .*, got 'chance'"),
        ({"percents": (0.01, 5.0)}, "--percents must fill at least one pixel, got 0.01, .* 32 pixels a side"),
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"threads": 0}, "--threads must be at least 1, got 0"),
        ({"workers": -1}, "--workers must be at least 0, got -1"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"device": "cuda:99"}, "cuda"),
    ],
)
def test_what_cannot_be_asked(bare, options, words):
    with pytest.raises(RequestError, match=words):
        occlude(bare, **options)
    assert not (bare / "occlusion").exists()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RequestError, match=r"no index\.h5"):
        occlude(tmp_path)


def test_what_is_asked_twice_is_done_once(unoccluded):
    occlude_few(unoccluded, fills=("black", "black"), percents=(20.0, 5.0, 20.0), controls=("random",) * 2)
    axes, _ = stored(unoccluded)
    assert (axes.fills, axes.percents, axes.controls) == (("black",), (5, 20), ("own", "random"))


def test_data_that_moved(data, unoccluded, finished, tmp_path, monkeypatch):
    elsewhere = Path(shutil.copytree(data, tmp_path / "elsewhere"))
    text = (unoccluded / "run.toml").read_text()
    assert str(data) in text
    (unoccluded / "run.toml").write_text(text.replace(str(data), str(tmp_path / "gone")))
    with pytest.raises(RequestError, match=r"data set .*gone .* is not there: .*--data"):
        occlude_few(unoccluded)
    occlude_few(unoccluded, data=elsewhere)
    assert_same(finished, unoccluded)


# -- a folder that loses nothing


def test_a_finished_pass_is_kept(copied):
    before = {path.name: path.stat().st_mtime_ns for path in (copied / "occlusion").glob("*.h5")}
    report = occlude_few(copied)
    assert (report.blocks, report.skipped) == (0, 4)
    assert {p.name: p.stat().st_mtime_ns for p in (copied / "occlusion").glob("*.h5")} == before


@pytest.mark.parametrize("damage", ["deleted", "halved", "changed"])
def test_a_damaged_block_is_made_again(copied, finished, damage):
    path = copied / "occlusion/occlusion-00002.h5"
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "halved":
        path.write_bytes(content[: len(content) // 2])
    else:
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    assert any("occlusion-00002.h5" in problem for problem in verify(copied))
    notes: list[str] = []
    report = occlude_few(copied, note=notes.append)
    assert (report.blocks, report.skipped) == (1, 3)
    assert any("occlusion-00002.h5" in t and "computed again" in t for t in notes) == (damage != "deleted")
    assert blocks(copied) == blocks(finished)
    assert_same(finished, copied)
    assert verify(copied) == []


def test_an_interrupted_pass_goes_on_to_the_same_bits(unoccluded, finished, monkeypatch):
    """Ctrl-C while the second block is written: it is finished, and what was begun goes on later."""
    real = BlockSink.__call__

    def interrupted(self, result):
        real(self, result)
        if result.number == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(BlockSink, "__call__", interrupted)
    report = occlude_few(unoccluded)
    assert (report.interrupted, report.blocks) == (True, 2)
    monkeypatch.setattr(BlockSink, "__call__", real)
    with open_results(unoccluded) as results:
        assert results.occluded == ()
    with pytest.raises(RequestError, match="leamfast occlude"):
        occlusion_tables(unoccluded)
    assert any("missing" in problem for problem in verify(unoccluded))
    report = occlude_few(unoccluded)
    assert (report.interrupted, report.blocks, report.skipped) == (False, 2, 2)
    assert blocks(unoccluded) == blocks(finished)
    assert_same(finished, unoccluded)
    assert verify(unoccluded) == []


def test_a_block_that_fails_is_told_of_and_tried_again_later(unoccluded, finished, monkeypatch):
    real = OccludeFunction.__call__

    def failing(self, piece, ahead=None):
        if piece.number == 1:
            raise MemoryError("no room")
        return real(self, piece, ahead)

    monkeypatch.setattr(OccludeFunction, "__call__", failing)
    notes: list[str] = []
    report = occlude_few(unoccluded, note=notes.append)
    assert (report.blocks, report.failed_blocks) == (3, 1)
    monkeypatch.setattr(OccludeFunction, "__call__", real)
    report = occlude_few(unoccluded)
    assert (report.blocks, report.skipped, report.failed_blocks) == (1, 3, 0)
    assert_same(finished, unoccluded)


def test_a_full_disk_ends_the_pass_with_whole_blocks(unoccluded, finished, monkeypatch):
    real, calls = atomic.os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(OSError, match="no room for"):
        occlude_few(unoccluded)
    monkeypatch.setattr(atomic.os, "fsync", real)
    open_results(unoccluded).close()
    assert not list((unoccluded / "occlusion").glob(".*tmp"))
    occlude_few(unoccluded)
    assert_same(finished, unoccluded)


@pytest.mark.slow
def test_workers_find_the_same(unoccluded, finished):
    report = occlude_few(unoccluded, workers=2)
    assert (report.blocks, report.failed_blocks) == (4, 0)
    assert blocks(unoccluded) == blocks(finished)
    assert_same(finished, unoccluded)
    assert verify(unoccluded) == []


@pytest.mark.parametrize(("images", "masks", "count"), [(2**20, 2**14, 1), (1, 1, 4)])
def test_the_size_of_blocks_changes_no_value(unoccluded, finished, monkeypatch, images, masks, count):
    """One block of all rows, or rows one by one: other images share a batch, and no draw differs."""
    monkeypatch.setattr(occlude_plan, "IMAGES", {"cpu": images})
    monkeypatch.setattr(engine_occlude, "MASKS", masks)
    assert occlude_few(unoccluded).blocks == count
    for pair in (("one", "one"), ("one", "two")):
        before, after = stored(finished, *pair)[1], stored(unoccluded, *pair)[1]
        np.testing.assert_allclose(after.drop, before.drop, atol=1e-5)
        np.testing.assert_array_equal(after.support_size, before.support_size)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"percents": (10.0,)}, "percents: "),
        ({"fills": ("black", "mean")}, "fills: "),
        ({"controls": ("random",)}, "controls: "),
        ({"seeds": 3}, "seeds: 2 -> 3"),
        ({"curves": True}, "curves: False -> True"),
        ({"sources": ("one",)}, "sources: "),
        ({"evaluated": ("one",)}, "models"),
        ({"batch_size": 7}, "batch_size: 16 -> 7"),
        ({"threads": 2}, "threads: 1 -> 2"),
    ],
)
def test_other_settings_are_refused_and_named(finished, change, words):
    before = blocks(finished)
    with pytest.raises(RequestError, match=rf"other settings \(.*{words}.*--overwrite"):
        occlude_few(finished, **change)
    assert blocks(finished) == before


def test_threads_need_not_be_said_again(copied):
    assert occlude_few(copied, threads=None).skipped == 4


def test_overwrite_throws_old_blocks_and_tables_away(copied, finished, monkeypatch):
    written = write_occlusion(copied, occlusion_tables(copied))
    assert (copied / "tables/occlusion.csv").is_file()
    (copied / "tables/regions.csv").write_text("not of this pass\n")
    monkeypatch.setattr(occlude_plan, "IMAGES", {"cpu": 2**20})  # fewer blocks than there are
    report = occlude_few(copied, overwrite=True, percents=(10.0,), seeds=1)
    assert (report.blocks, report.skipped) == (1, 0)
    assert list(blocks(copied)) == ["occlusion-00000.h5"]
    assert stored(copied)[0].percents == (10,)
    assert not any(path.exists() for path in written.values())
    assert (copied / "tables/regions.csv").exists()
    assert verify(copied) == []


def test_blocks_without_settings_are_made_anew(copied, finished):
    """Nobody knows how they were made."""
    RunFolder(copied).occlude_settings.unlink()
    assert occlude_few(copied).blocks == 4
    assert_same(finished, copied)


def test_occlusion_of_maps_that_were_made_anew_does_not_count(copied, data):
    replace_maps(copied, lambda tap, first, maps: np.nan_to_num(maps[:, ::-1]).copy())
    assert verify(copied)
    with open_results(copied) as results:
        assert results.occluded == ()
    with pytest.raises(RequestError, match=r"other settings \(.*parts"):
        occlude_few(copied)
    assert occlude_few(copied, overwrite=True).blocks == 4
    with open_results(copied) as results:
        assert len(results.occluded) == 4


def test_two_passes_cannot_share_a_folder(copied):
    with RunFolder(copied).locked(), pytest.raises(RequestError, match="in use by another run"):
        occlude_few(copied)
