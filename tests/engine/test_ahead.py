"""Crops made ahead, while models compute."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from leamfast.engine import batch
from leamfast.engine.ahead import CropsAhead
from leamfast.engine.batch import BatchFunction
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.engine.local import LocalDriver
from leamfast.engine.plan import Shard
from leamfast.engine.run import run
from leamfast.store.run_folder import RunFolder


@dataclass(frozen=True)
class Told:
    """Notes what each shard is computed after, and what is said to be next."""

    folder: Path

    def __call__(self, shard: Shard, ahead: Shard | None = None) -> Shard:
        name = threading.get_native_id()
        turn = len(list(self.folder.glob(f"{name}-*")))
        (self.folder / f"{name}-{turn:03}-{shard.number}-{-1 if ahead is None else ahead.number}").touch()
        return shard


def forget(part: Shard) -> None:
    """A sink that keeps nothing."""


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_shard_is_done_once_and_mostly_by_who_was_told_of_it(tmp_path, workers):
    plan = [Shard(number, ()) for number in range(20)]
    report = run(plan, Told(tmp_path), forget, driver=LocalDriver(workers))
    assert sorted(report.done) == list(range(20))
    calls: dict[int, list[tuple[int, int]]] = {}
    for path in sorted(tmp_path.iterdir()):
        who, _, shard, ahead = path.name.replace("--1", "-none").split("-")
        calls.setdefault(int(who), []).append((int(shard), -1 if ahead == "none" else int(ahead)))
    assert sum(map(len, calls.values())) == 20
    kept = [
        ahead == after
        for done in calls.values()
        for (_, ahead), (after, _) in zip(done, done[1:], strict=False)
    ]
    assert sum(kept) >= len(kept) - max(0, workers - 1)  # the last may be taken by who is idle


def test_what_was_begun_is_taken_and_made_once_in_the_background():
    made: list[tuple[int, bool]] = []

    def make(shard):
        made.append((shard.number, threading.current_thread() is threading.main_thread()))
        return shard.number

    crops = CropsAhead(make)
    first, second = (Shard(number, ()) for number in range(2))
    crops.begin(first)
    crops.begin(first)  # is begun already
    assert crops.take(second) == 1  # another than what was begun, which is not forgotten
    assert crops.take(first) == 0
    assert sorted(made) == [(0, False), (1, True)]
    assert crops.take(first) == 0
    assert made[2:] == [(0, True)]


def test_what_making_them_raised_is_raised_where_they_are_taken():
    def make(shard):
        raise ValueError("no good")

    crops = CropsAhead(make)
    crops.begin(Shard(1, ()))
    with pytest.raises(ValueError, match="no good"):
        crops.take(Shard(1, ()))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_with_overlap_gives_the_same(faces, tmp_path, monkeypatch, workers):
    make_crops = batch.make_crops
    threads = set()

    def watched(*arguments):
        threads.add(threading.current_thread() is threading.main_thread())
        return make_crops(*arguments)

    monkeypatch.setattr(batch, "make_crops", watched)
    before = BatchFunction.__init__
    request = BatchRequest(
        data=faces, out=tmp_path / "plain", model=("demo=random:0",), layers=("layer2.0.conv1",),
        align="none", shard_images=12, batch_size=5, threads=1, workers=workers,
    )  # fmt: skip
    run_batch(request, note=lambda text: None)

    def overlapping(self, *arguments, **options):
        before(self, *arguments, **options)
        self.overlap = True

    monkeypatch.setattr(BatchFunction, "__init__", overlapping)
    run_batch(BatchRequest(**{**vars(request), "out": tmp_path / "ahead"}), note=lambda text: None)
    if workers == 0:
        assert threads == {True, False}
    plain, ahead = (sorted(RunFolder(tmp_path / name).shards.iterdir()) for name in ("plain", "ahead"))
    assert [path.name for path in plain] == [path.name for path in ahead]
    assert len(plain) > 2
    for one, other in zip(plain, ahead, strict=True):
        assert one.read_bytes() == other.read_bytes()
