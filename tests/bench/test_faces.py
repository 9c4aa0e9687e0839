"""`leamfast bench faces`: its photos, its checks, its tables, and a tiny form of it from end to end."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.errors import RequestError
from leamfast_bench.faces import benchmark, detection, processes
from leamfast_bench.faces.benchmark import FULL, SMALL, Form
from leamfast_bench.faces.detection import _largest_difference, measure_detection
from leamfast_bench.faces.environment import environment
from leamfast_bench.faces.photos import write_photos
from leamfast_bench.faces.processes import measure_processes
from leamfast_bench.faces.shares import NOT_COUNTED, measure_shares
from leamfast_bench.faces.tables import tables
from leamfast_bench.registry import Options, run

WEIGHTS = "mobilenet0.25_Final.pth"


@pytest.fixture
def people(shared_data, tmp_path) -> Path:
    """Six photos of two people."""
    for person in ("id04", "id11"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for file in sorted((shared_data / "photos" / person).iterdir())[:3]:
            (tmp_path / "people" / person / file.name).symlink_to(file)
    return tmp_path / "people"


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three pictures of two people, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    for name in ("b/1.png", "a/1.png", "a/2.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / name)
    (folder / "a/3.jpg").write_bytes(b"no photo")
    return folder


def test_photos_are_all_different_and_the_same_for_the_same_seed(photos, tmp_path):
    written = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_photos(photos, tmp_path / name, 21, seed)
        files = sorted((tmp_path / name).rglob("*.jpg"))
        written.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    first, second, other = written
    assert first == second
    assert list(first) == list(other)
    assert first != other
    assert len(first) == len({hashlib.sha1(content).digest() for content in first.values()}) == 21
    assert {name.partition("/")[0] for name in first} == {
        f"{p:04d}-{c:03d}" for p in (0, 1) for c in range(7)
    }
    shapes = {np.array(Image.open(file)).shape for file in (tmp_path / "one").rglob("*.jpg")}
    assert all(56 <= height <= 60 and 75 <= width <= 80 for height, width, _ in shapes)


def test_data_without_a_photo_is_refused(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    with pytest.raises(RequestError, match="--data must hold photos, got .* with none that can be read"):
        write_photos(tmp_path, tmp_path / "out", 3)


def test_variables_are_set_for_a_while(monkeypatch):
    monkeypatch.setenv("LEAMFAST_A", "before")
    with environment(LEAMFAST_A="now", LEAMFAST_B="now"):
        assert (os.environ["LEAMFAST_A"], os.environ["LEAMFAST_B"]) == ("now", "now")
    assert os.environ["LEAMFAST_A"] == "before"
    assert "LEAMFAST_B" not in os.environ


def test_the_difference_of_boxes():
    one, two = np.zeros((1, 14)), np.zeros((2, 14))
    moved = one.copy()
    moved[0, 13] = 0.5
    assert _largest_difference([one, two[:0]], [moved, two[:0]]) == 0.5
    assert _largest_difference([], []) == 0
    assert math.isinf(_largest_difference([one], [two]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(), "--data DIR --detector retinaface=FILE"),
        (Options(data=Path("nowhere"), detector=("mtcnn",)), "detector must be retinaface=FILE"),
        (Options(data=Path("nowhere"), detector=("retinaface=nowhere",)), "there is no file nowhere"),
        (Options(workers=2), "--workers means nothing to the benchmark faces"),
    ],
)
def test_what_the_user_did_wrong(options, words):
    with pytest.raises(RequestError, match=words):
        run("faces", options)


@pytest.mark.parametrize("option", [{"data": Path(".")}, {"detector": ("dlib",)}, {"model": "demo"}])
def test_other_benchmarks_take_no_photos(option):
    (name,) = option
    with pytest.raises(RequestError, match=f"--{name} means nothing to the benchmark kernels"):
        run("kernels", Options(**option))


def test_the_full_form():
    """What the project says of its speed was measured on these."""
    assert FULL.photos == 1000
    assert FULL.rounds >= 5
    assert SMALL.photos < 100


def rate(value: float) -> dict:
    return {"photos_per_second": value, "quartiles": [value - 1, value + 1]}


FOUND = {
    "device": "here",
    "threads": 1,
    "model": "mobilefacenet=file.pt",
    "left_out": {},
    "processes": [
        {
            "detector": "retinaface",
            "photos": 10,
            "crops": 9,
            "equal": True,
            "ratio": 1.9,
            "rows": [
                {"processes": 1, "start_seconds": 3.0, **rate(20.0)},
                {"processes": 2, "start_seconds": 4.0, **rate(38.0)},
            ],
        },
        {"detector": "dlib", "photos": 10, "crops": 9, "equal": False, "ratio": None, "rows": []},
    ],
    "detection": {
        "pictures": 5,
        "faces": 5,
        "error": 0.002,
        "limit": 0.01,
        "ratio": 3.0,
        "rows": [{"row": "leamfast", **rate(30.0)}, {"row": "facer", **rate(10.0)}],
    },
    "cached": [
        {
            "cache": cache,
            "seconds": 10.0,
            "to_first_shard": 1.0,
            "to_first_map": 3.0,
            "share_before_first_map": 0.3,
            "images": 9,
            "searched": searched,
        }
        for cache, searched in (("empty", 10), ("filled", 0))
    ],
    "shares": [
        {"masks": masks, "images": 8, "calls": 1, "round_trips": trips, "share_of_shares": 0.125}
        for masks, trips in ((False, 2), (True, 2))
    ],
}


def test_tables_say_what_was_found():
    found = tables(FOUND)
    assert all(len(row) == len(table.columns) for table in found for row in table.rows)
    speed, faces, cached, shares, left_out = found
    assert speed.rows == (
        ("retinaface, 1 process", "20.0", "19.0-21.0", "1.00", "3.0"),
        ("retinaface, 2 processes", "38.0", "37.0-39.0", "1.90", "4.0"),
    )
    assert faces.rows == (("leamfast", "30.0", "29.0-31.0", "1.00"), ("facer", "10.0", "9.0-11.0", "3.00"))
    assert faces.title.endswith("differ by at most 0.002 pixels")
    assert cached.rows[1] == ("filled", "10.0", "1.00", "2.00", "30.0%", 0)
    assert (
        cached.title == "`leamfast batch` on 9 photos, mobilefacenet, here, 1 thread, by what its caches hold"
    )
    assert shares.rows[1] == ("with region masks", 2, "12.5%")
    assert left_out.rows == (("dlib, processes", "outputs differ"),)


def test_tables_say_what_was_not_measured():
    nothing = {
        **FOUND,
        "processes": [],
        "detection": {**FOUND["detection"], "rows": [], "error": None},
        "shares": [{**row, "round_trips": None} for row in FOUND["shares"]],
    }
    *_, shares, left_out = tables(nothing)
    assert shares.rows[0][1] == "not measured"
    assert dict(left_out.rows) == {
        "detection": "our boxes and facer's differ by more than 0.01 pixels",
        "times the host waited": NOT_COUNTED,
    }
    without = {**FOUND, "left_out": {"detection": "no RetinaFace"}}
    del without["detection"]
    assert tables(without)[-1].rows[0] == ("detection", "no RetinaFace")


def test_region_shares_are_counted_and_timed(faces, tmp_path):
    from leamfast.engine.batch_run import BatchRequest

    request = BatchRequest(
        faces, tmp_path / "out", ("demo",), align="none", backend="eager", threads=1, limit_identities=2
    )
    without, with_masks = measure_shares(request)
    assert (without["masks"], with_masks["masks"]) == (False, True)
    for row in (without, with_masks):
        assert (row["images"], row["calls"], row["round_trips"]) == (8, 1, None)
        assert 0 < row["share_of_shares"] < 1


def test_boxes_that_differ_are_not_timed(shared_data, tmp_path, monkeypatch):
    from leamfast.faces.detection import parse_detector

    write_photos(shared_data / "photos", tmp_path / "photos", 2)
    monkeypatch.setattr(detection, "LIMIT", 1e-9)
    spec = parse_detector(f"retinaface={shared_data / WEIGHTS}")
    found = measure_detection(spec, tmp_path / "photos", 2, 1, "cpu", quiet)
    assert found["faces"] == 2
    assert 1e-9 < found["error"] < 0.01
    assert (found["rows"], found["ratio"]) == ([], None)


@pytest.mark.slow
def test_outputs_that_differ_are_not_timed(shared_data, people, tmp_path, monkeypatch):
    write_photos(people, tmp_path / "photos", 6)
    monkeypatch.setattr(
        processes, "_hashes", lambda folder: {f"{len(list((folder / 'ready').iterdir()))}.png": ""}
    )
    detector = f"retinaface={shared_data / WEIGHTS}"
    options = {"rounds": 1, "threads": 1, "device": "cpu", "note": quiet}
    monkeypatch.setattr(processes, "shard_images", lambda images: 1)
    found = measure_processes(detector, tmp_path / "photos", tmp_path / "crops", **options)
    assert not found["equal"]
    assert (found["rows"], found["ratio"]) == ([], None)


def test_one_person_cannot_be_shared(people, tmp_path):
    options = {"rounds": 1, "threads": 1, "device": "cpu", "note": quiet}
    with pytest.raises(RequestError, match="--data must hold photos of several people, got 1 of them"):
        measure_processes("dlib", people / "id04", tmp_path / "crops", **options)


@pytest.mark.slow
def test_a_tiny_form_as_users_run_it(shared_data, people, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "SMALL", Form(6, 1, 3, 2, 1, 2))
    monkeypatch.setattr(processes, "shard_images", lambda images: 1)
    kept = tmp_path / "faces.json"
    words = [
        "--data",
        people,
        "--detector",
        f"retinaface={shared_data / WEIGHTS}",
        "--out",
        kept,
    ]
    done = CliRunner().invoke(app, ["bench", "faces", "--small", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "facer" in done.stdout
    results = json.loads(kept.read_text())["results"]
    (speed,) = results["processes"]
    assert (speed["photos"], speed["crops"], speed["equal"]) == (6, 6, True)
    assert [row["processes"] for row in speed["rows"]] == [1, 2]
    assert speed["ratio"] > 0
    assert results["detection"]["error"] <= detection.LIMIT
    assert results["detection"]["ratio"] > 0
    empty, filled = results["cached"]
    assert (empty["images"], filled["images"]) == (6, 6)
    assert empty["searched"] >= 6
    assert filled["searched"] == 0
    for cached in (empty, filled):
        assert 0 < cached["to_first_shard"] < cached["to_first_map"] < cached["seconds"]
    assert [row["masks"] for row in results["shares"]] == [False, True]


@pytest.mark.gpu
def test_round_trips_are_counted_on_a_gpu(faces, tmp_path):
    from leamfast.engine.batch_run import BatchRequest

    request = BatchRequest(
        faces, tmp_path / "out", ("demo",), align="none", backend="eager", threads=1, device="cuda"
    )
    without, with_masks = measure_shares(request)
    assert without["round_trips"] is not None
    assert with_masks["round_trips"] <= without["round_trips"]
