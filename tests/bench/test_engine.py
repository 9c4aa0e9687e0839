"""`leamfast bench engine`: its arithmetic, checks and tables; measurements in this process, without Ray."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from leamfast.engine.agenda import Event
from leamfast.engine.local import LocalDriver
from leamfast.errors import RequestError
from leamfast.store.part import read_part, write_part
from leamfast_bench.engine import benchmark, memory, overhead, reading, starting
from leamfast_bench.engine.bars import bars
from leamfast_bench.engine.form import SMALL
from leamfast_bench.engine.gpus import DeviceNaps, Photos
from leamfast_bench.engine.naps import Nap, Naps, NapSink, plan_naps
from leamfast_bench.engine.parts import SMALL_LAYERS, make_part
from leamfast_bench.engine.places import PROCESSES, RAY, napped
from leamfast_bench.engine.scaling import ALONE, write_faces
from leamfast_bench.engine.spells import (
    Spell,
    WrongWorkError,
    busy_share,
    check_once,
    gap_seconds,
    gaps_over_work,
    spells_of,
    steady_rate,
)
from leamfast_bench.engine.storing import check_equal, measure_storing
from leamfast_bench.engine.tables import tables
from leamfast_bench.registry import Options, run

# Two workers: a loads for 5 s, b for 3 s; then pieces of ten in a second, with half a second between a's.
SPELLS = [
    Spell("a", 0, 10, 0.0, 5.0),
    Spell("a", 1, 10, 5.5, 6.5),
    Spell("a", 4, 10, 7.0, 8.0),
    Spell("b", 2, 10, 0.0, 3.0),
    Spell("b", 3, 10, 3.0, 6.0),
    Spell("b", 5, 10, 6.0, 9.0),
]


def quiet(text: str) -> None:
    pass


def test_the_rate_is_that_of_the_time_in_which_all_are_at_work():
    # From 5 (a has finished its first piece) to 8 (a has no more): two pieces of a, and of b a third of one
    # and two thirds of the next.
    assert steady_rate(SPELLS) == pytest.approx((20 + 10 / 3 + 20 / 3) / 3)


def test_gaps_and_shares_of_time():
    assert sorted(gap_seconds(SPELLS)) == [0, 0, 0.5, 0.5]
    assert gaps_over_work(SPELLS) == pytest.approx(1 / (5 + 1 + 3 + 3))
    assert busy_share(SPELLS) == pytest.approx((7 + 9) / (8 + 9))


def test_workers_that_were_never_at_work_together():
    with pytest.raises(WrongWorkError, match="not at work at the same time"):
        steady_rate([Spell("a", 0, 1, 0, 1), Spell("a", 1, 1, 1, 2), *SPELLS[4:5], Spell("b", 9, 1, 6, 7)])


@pytest.mark.parametrize(
    ("spells", "pieces", "workers"),
    [(SPELLS[:-1], 6, 2), ([*SPELLS, SPELLS[0]], 6, 2), (SPELLS, 6, 3), (SPELLS, 7, 2)],
)
def test_work_that_was_not_done_once_by_all_is_not_timed(spells, pieces, workers):
    check_once(SPELLS, 6, 2)
    with pytest.raises(WrongWorkError):
        check_once(spells, pieces, workers)


def test_a_piece_that_failed_once_is_not_timed():
    piece = Nap(0, 0.0)
    done = Event(piece, worker="a", began=1.0, ended=2.0)
    assert spells_of([done]) == [Spell("a", 0, 1, 1.0, 2.0)]
    with pytest.raises(WrongWorkError, match="piece 0 failed: broken"):
        spells_of([Event(piece, "broken", final=False), done])


def test_naps_are_taken_once_and_leave_their_parts(tmp_path):
    spells = napped(LocalDriver(0), 1, 3, 0.01, 8, tmp_path)
    assert sorted(spell.piece for spell in spells) == [0, 1, 2]
    assert all(spell.ended - spell.began >= 0.01 for spell in spells)
    assert [read_part(tmp_path / f"part-{number:05d}.h5").rows for number in range(3)] == [8, 8, 8]
    with pytest.raises(FileExistsError):
        NapSink(tmp_path)(Naps()(plan_naps(1, 0.0)[0]))


def test_a_place_is_measured_by_its_gaps(monkeypatch, tmp_path):
    told = []

    def fake(driver, workers, pieces, seconds, rows, folder):
        told.append((driver, workers, pieces, seconds, rows))
        return SPELLS

    monkeypatch.setattr(overhead, "napped", fake)
    monkeypatch.setattr(overhead, "apart", lambda function, *args: function(*args))
    (row,) = overhead.measure_overhead(tmp_path, [PROCESSES], 2.0, 3, 16, 0.5, 4, quiet)
    assert [call[1:] for call in told] == [(2, 6, 2.0, 16), (1, 4, 0.5, 0), (2, 4, 0.5, 0)]
    assert (row["place"], row["shards"], row["scaling"]) == (PROCESSES, gaps_over_work(SPELLS), 1)


def test_parts_are_equal_to_themselves_alone(tmp_path):
    part = make_part(1, 8)
    write_part(tmp_path / "part.h5", part)
    check_equal(read_part(tmp_path / "part.h5"), make_part(1, 8))
    with pytest.raises(WrongWorkError, match="was read with other values"):
        check_equal(read_part(tmp_path / "part.h5"), make_part(2, 8))
    with pytest.raises(WrongWorkError, match="in one part only"):
        check_equal(read_part(tmp_path / "part.h5"), make_part(1, 8, SMALL_LAYERS))


@pytest.mark.slow
def test_writers_are_processes_and_leave_nothing(tmp_path):
    found = measure_storing(tmp_path, (1,), 16, 2, 1, quiet)
    assert [(row["row"], row["writers"]) for row in found["rows"]] == [("parts", 1), ("plain files", 1)]
    assert all(row["mb_per_second"] > 0 for row in found["rows"])
    assert not list(tmp_path.iterdir())


def test_maps_are_read_in_five_ways(tmp_path):
    found = reading.measure_reading(tmp_path, 3, 8, 12, quiet)
    assert (found["parts"], found["images"]) == (3, 24)
    names = [reading.PART, reading.PART_OPENED, reading.INDEX, reading.INDEX_OPENED, reading.COLD]
    assert [row["row"] for row in found["rows"]] == names
    assert all(0 < row["quartiles"][0] <= row["seconds"] <= row["quartiles"][1] for row in found["rows"])


def test_a_map_that_is_another_one_is_not_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(reading, "make_part", lambda *args, **options: make_part(*args, **options))
    monkeypatch.setattr(reading, "write_part", lambda path, part: write_part(path, _wrong(part)))
    with pytest.raises(WrongWorkError, match="is not the one that was written"):
        reading.measure_reading(tmp_path, 2, 8, 16, quiet)


def _wrong(part):
    name = "model/stand-in/layer/layer2/map"
    array = part.arrays[name]
    return replace(part, arrays={**part.arrays, name: replace(array, values=array.values[::-1])})


def test_a_run_that_computes_nothing_holds_all_images(tmp_path):
    before = memory.batch_run.LocalSite
    found = memory.stand_in_run(230, tmp_path, workers=0)
    assert (found["images"], found["shards"]) == (230, 3)
    assert memory.batch_run.LocalSite is before
    assert not list(tmp_path.iterdir())


def test_photos_are_prepared_and_known_by_their_sum(tmp_path):
    manifest = write_faces(tmp_path, 1, 2)
    lines = manifest.read_text().splitlines()
    assert len(lines) == 1 + 2 * 4
    assert lines[5] == "1/id0000/000.png,1-id0000,drawn/.labels/id0000/000.png"
    assert all((tmp_path / name).is_file() for line in lines[1:] for name in line.split(",")[::2])
    piece = Photos(3, tuple(sorted((tmp_path / "1" / "id0000").iterdir())), 0.0)
    function = DeviceNaps(4)
    part = function(piece)
    assert (part.shard, part.rows, part.run) == (3, 4, str(int(function.prepare(piece).sum())))


TIMES = {"imported": 3.0, "connected": 8.0, "actor": 12.0, "resolved": 13.0}
STARTED = {"began": 0.0, "times": TIMES, "events": [["b", 1, 4, 14.5, 17.0], ["a", 0, 4, 14.0, 16.0]]}


def test_stages_of_a_start(monkeypatch):
    assert starting.stages(STARTED) == [3, 5, 4, 1, 1, 2]
    monkeypatch.setattr(starting, "bare_start", lambda: [2.0, 5.0, 4.5])
    found = starting.measure_starting([STARTED], 2, quiet)
    assert (found["seconds"], found["bare_seconds"], found["ours_seconds"]) == (16, 11.5, 2.5)
    assert list(found["by_stage"].values()) == [3, 5, 4, 1, 1, 2]
    with pytest.raises(WrongWorkError, match="in another order"):
        starting.stages({**STARTED, "times": {**TIMES, "actor": 2.0}})


def results() -> dict:
    rows = [
        {"place": place, "workers": workers, "images_per_second": 50.0 * workers, "quartiles": [40.0, 60.0],
         "over_one": float(workers), "wall_seconds": 20.0}
        for place in (PROCESSES, RAY, ALONE) for workers in (1, 2)
    ]  # fmt: skip
    naps = {"shard_seconds": 10.0, "images": 4, "shards": 0.04, "shard_gap_seconds": 0.4}
    naps |= {"short_seconds": 0.1, "gap_seconds": 0.001, "scaling": 1.9}
    peaks = {"seconds": 1.0, "before_bytes": 2**29, "worker_bytes": 2**29}
    read = {"reads": 2, "quartiles": [0.001, 0.003], "seconds": 0.002}
    return {
        "device": "a processor",
        "left_out": {},
        "scaling": {"images": 8, "shards": 2, "rows": rows},
        "overhead": [{"place": place} | naps for place in (PROCESSES, RAY)],
        "starting": {"seconds": 16.0, "by_stage": dict.fromkeys(starting.STAGES, 1.0), "bare_seconds": 11.0,
                     "bare_by_stage": dict.fromkeys(starting.STAGES[:3], 1.0), "ours_seconds": 2.5},
        "gpus": {"gpus": 4, "pieces": 8, "seconds": 2.0, "photos": 64, "part_bytes": 2**20, "busy": 0.99,
                 "gap_seconds": 0.01, "longest_gap_seconds": 0.02},
        "memory": [
            {"images": 1000, "shards": 10, "driver_bytes": 100 * 2**20} | peaks,
            {"images": 50_000, "shards": 500, "driver_bytes": 112 * 2**20} | peaks,
        ],
        "storing": {"part_bytes": 10**8, "images": 4, "parts": 2, "rows": [
            {"row": "parts", "writers": 1, "mb_per_second": 300.0, "quartiles": [200.0, 400.0]},
            {"row": "parts", "writers": 2, "mb_per_second": 450.0, "quartiles": [200.0, 500.0]},
            {"row": "plain files", "writers": 1, "mb_per_second": 900.0, "quartiles": [200.0, 999.0]},
        ]},
        "reading": {"parts": 2, "images": 8, "side": 28, "index_seconds": 1.0, "rows": [
            {"row": reading.PART} | read, {"row": reading.INDEX} | read, {"row": reading.COLD} | read,
        ]},
    }  # fmt: skip


def test_bars_say_what_is_met_and_what_is_not():
    found = {bar["what"]: (bar["found"], bar["met"]) for bar in bars(results())}
    assert found == {
        "worker processes: images a second of 2, times those of one": (2.0, True),
        "actors of Ray: images a second of 2, times those of one": (2.0, True),
        "worker processes: naps of two, times those of one": (1.9, True),
        "actors of Ray: naps of two, times those of one": (1.9, True),
        "worker processes: % of a shard of 10 s spent beside it": (4.0, False),
        "actors of Ray: % of a shard of 10 s spent beside it": (4.0, False),
        "Ray of our own: s to the first piece": (16.0, True),
        "of these ours, s": (2.5, False),
        "4 GPUs that are none: % busy": (99.0, True),
        "peak memory of a driver at 50000 images, times that at 1000": (pytest.approx(1.12), False),
        "peak memory of a worker at 50000 images, times that at 1000": (1.0, True),
        "2 writers of parts: MB/s": (450.0, True),
        "a map, open part: ms": (2.0, False),
        "a map, open run: ms": (2.0, True),
    }


def whole(found: dict) -> None:
    """Every table of results has all its columns, and the page has a place for it."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text()
    for table in tables(found):
        assert all(len(row) == len(table.columns) for row in table.rows), table.name
        assert f"<!-- table {table.name} -->" in page


def test_tables_are_whole_and_have_a_place_in_the_page():
    whole(results() | {"bars": bars(results())})


def test_what_a_form_without_ray_leaves_out_is_told(monkeypatch):
    made = results()
    for name in ("storing", "reading", "memory", "overhead"):
        monkeypatch.setattr(benchmark, f"measure_{name}", lambda *args, name=name: made[name])
    monkeypatch.setattr(benchmark, "SMALL", replace(SMALL, copies=0, device_pieces=0, places=(PROCESSES,)))
    found = json.loads(json.dumps(run("engine", Options(small=True, note=quiet))))["results"]
    assert list(found["left_out"]) == [
        "one worker and two, on real work", "start-up", "GPUs that are none", "what was asked",
    ]  # fmt: skip
    assert found["bars"] == []
    whole(found)


def test_more_threads_mean_nothing_here():
    with pytest.raises(RequestError, match="leave --device and --threads out"):
        run("engine", Options(threads=2, note=quiet))
