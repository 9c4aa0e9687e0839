"""Going on with a run: what is kept, what is made again, and what is refused."""

import shutil
from pathlib import Path

import pytest

from leamfast import RequestError
from leamfast.engine.batch_run import run_batch
from leamfast.store.verify import verify
from tests.engine.test_batch import assert_same, go, request


def copied(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


SAME = {"layers": ("auto",), "batch_size": 5, "resume": True}


def test_resume_keeps_finished_parts_and_fills_in_the_rest(faces, finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    (run / "shards/part-00001.h5").unlink()
    (run / "index.h5").unlink()
    (run / "shards/.part-00001.h5.99-0123abcd.tmp").touch()
    before = {path.name: path.stat().st_mtime_ns for path in (run / "shards").glob("part-*")}
    report = go(faces, run, **SAME)
    assert (report.shards, report.skipped) == (1, 3)
    after = {path.name: path.stat().st_mtime_ns for path in (run / "shards").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"part-00001.h5"}
    assert_same(finished_run, run)


def test_resume_refuses_parts_of_which_nobody_knows_how_they_were_made(faces, finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    (run / "run.toml").unlink()
    with pytest.raises(RequestError, match="parts but no run.toml"):
        go(faces, run, **SAME)


def test_resume_does_not_take_one_part_for_another(faces, finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    shutil.copy(run / "shards/part-00000.h5", run / "shards/part-00001.h5")
    assert go(faces, run, **SAME).shards == 1
    assert_same(finished_run, run)


def test_a_model_from_code_with_other_weights_is_another_model(faces, tmp_path, monkeypatch):
    (tmp_path / "seeded.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom leamfast.models.demo import demo_network\n"
        "def make():\n"
        f"    torch.manual_seed(int(Path({str(tmp_path)!r}, 'seed').read_text()))\n"
        "    return demo_network()\n"
    )
    (tmp_path / "seed").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    half = {"size": 112, "channels": "rgb", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    options = {
        "model": ("seeded:make",),
        "layers": ("conv1",),
        "trust_code": True,
        "preprocessing": {"*": half},
    }
    go(faces, tmp_path / "out", **options)
    (tmp_path / "seed").write_text("2")
    with pytest.raises(RequestError, match="models.make.weights"):
        go(faces, tmp_path / "out", **options, resume=True)


def test_resume_makes_a_damaged_part_again(faces, finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    path = run / "shards/part-00002.h5"
    path.write_bytes(path.read_bytes()[:1000])
    notes: list[str] = []
    report = run_batch(request(faces, run, **SAME), note=notes.append)
    assert (report.shards, report.skipped) == (1, 3)
    assert any("part-00002.h5" in text and "computed again" in text for text in notes)
    assert_same(finished_run, run)


@pytest.mark.parametrize("text", ["", "schema = 'leamfast/1'", "[frozen]\nshards = 3"])
def test_resume_refuses_a_damaged_run_toml(faces, finished_run, tmp_path, text):
    run = copied(finished_run, tmp_path)
    (run / "run.toml").write_text(text)
    with pytest.raises(RequestError, match="missing or damaged"):
        go(faces, run, **SAME)
    with pytest.raises(RequestError, match="missing or damaged"):
        verify(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "similarity"}, "target: loss -> similarity"),
        ({"activation": "positive"}, "activation: signed -> positive"),
        ({"registration": "receptive"}, "registration: resize -> receptive"),
        ({"batch_size": 6}, "batch_size: 5 -> 6"),
        ({"shard_images": 8}, "shards.count"),
        ({"model": ("demo=random:1",)}, "models.demo.weights: random:0 -> random:1"),
        ({"layers": ("conv1",)}, "models.demo.layers"),
        ({"threads": 2}, "threads: 1 -> 2"),
        ({"parser": "none"}, "parser: labels -> none"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ],
)
def test_resume_refuses_other_settings_and_says_which(faces, finished_run, change, words):
    with pytest.raises(RequestError, match=words):
        go(faces, finished_run, **{**SAME, **change})


def test_resume_refuses_other_data(faces, finished_run, tmp_path):
    data = Path(shutil.copytree(faces, tmp_path / "data"))
    lines = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(RequestError, match="manifest: "):
        go(data, finished_run, **SAME)


def test_resume_takes_data_that_moved(faces, finished_run, tmp_path):
    data = Path(shutil.copytree(faces, tmp_path / "moved"))
    assert go(data, copied(finished_run, tmp_path), **SAME).skipped == 4


def test_resume_keeps_the_threads_of_the_run_with_other_workers(faces, finished_run, tmp_path):
    run = copied(finished_run, tmp_path)
    (run / "shards/part-00000.h5").unlink()
    go(faces, run, **{**SAME, "threads": None, "workers": 1})
    assert_same(finished_run, run)


def test_resume_starts_a_run_where_there_is_none(faces, tmp_path):
    assert go(faces, tmp_path / "new", resume=True).shards == 4
    (tmp_path / "begun/shards").mkdir(parents=True)
    assert go(faces, tmp_path / "begun", resume=True).shards == 4


def test_two_runs_cannot_share_a_folder(faces, finished_run, tmp_path):
    from leamfast.store.run_folder import RunFolder

    run = copied(finished_run, tmp_path)
    with RunFolder(run).locked(), pytest.raises(RequestError, match="in use by another run"):
        go(faces, run, **SAME)


def test_a_full_disk_ends_the_run_with_whole_parts(faces, finished_run, tmp_path, monkeypatch):
    """The third part finds no room; what was written before is whole, and the run goes on later."""
    import errno

    from leamfast.store import atomic

    real, calls = atomic.os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(OSError, match="no room for part-00002.h5"):
        go(faces, tmp_path / "out", layers=("auto",), batch_size=5)
    monkeypatch.setattr(atomic.os, "fsync", real)
    assert sorted(p.name for p in (tmp_path / "out/shards").iterdir()) == ["part-00000.h5", "part-00001.h5"]
    assert go(faces, tmp_path / "out", **SAME).skipped == 2
    assert_same(finished_run, tmp_path / "out")
