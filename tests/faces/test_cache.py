"""The cache of detections: values bit for bit, several processes, damage, and what makes another key."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leamfast.datasets.folders import read_folders
from leamfast.engine import crops
from leamfast.engine.crops import Crops, Finding, make_crops
from leamfast.engine.plan import plan_shards
from leamfast.faces import cache, value_cache
from leamfast.faces.alignment import ARCFACE_TEMPLATE, FaceError
from leamfast.faces.cache import FaceCache, face_cache
from leamfast.faces.detection import DetectorSpec
from leamfast.faces.selection import Detection, Scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, notes: list[str]) -> Iterator[FaceCache]:
    opened = FaceCache(["detector"], tmp_path / "cache" / "faces.sqlite3", notes.append)
    yield opened
    opened.close()


def file_of(kept: FaceCache) -> Path:
    return kept._values.file


def face(seed: int = 0, landmarks: bool = False) -> Detection:
    """Numbers that no decimal of few digits gives back, and the odd ones of float32."""
    random = np.random.default_rng(seed)
    points = random.normal(0, 100, (5, 2)).astype(np.float32)
    points[0] = np.float32([-0.0, 1e-45])
    marks = random.normal(0, 1e30, (68, 2)).astype(np.float32) if landmarks else None
    scores = Scores(-0.5, 0.1, 1.0 / 3.0)
    return Detection(random.normal(0, 1, 4).astype(np.float32), points, float(random.random()), marks, scores)


def assert_same(found: Detection | FaceError | None, expected: Detection) -> None:
    assert isinstance(found, Detection)
    for name in ("box", "points", "landmarks"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == np.float32
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
    assert (found.score, found.scores) == (expected.score, expected.scores)


def test_faces_and_reasons_come_back_bit_for_bit(kept: FaceCache, notes: list[str]) -> None:
    five, many = face(0), face(1, landmarks=True)
    reason = FaceError("no face found: the best candidate scores 0.62, more than 0.8 is needed – ü")
    kept.keep([(("a", None), five), (("b", (1, 2, 3, 4)), many), (("c", None), reason)], "one")
    for again in (kept, FaceCache(["detector"], file_of(kept), notes.append)):
        found = again.look_up([("c", None), ("a", None), ("?", None), ("b", (1, 2, 3, 4))], "one")
        assert isinstance(found[0], FaceError)
        assert str(found[0]) == str(reason)
        assert_same(found[1], five)
        assert found[2] is None
        assert_same(found[3], many)
        again.close()
    assert kept.look_up([], "one") == []
    kept.keep([], "one")
    assert notes == []


def test_a_key_is_all_that_a_result_depends_on(kept: FaceCache) -> None:
    kept.keep([(("a", None), face())], "one")
    assert kept.look_up([("a", (0, 0, 1, 1)), ("b", None)], "one") == [None, None]
    assert kept.look_up([("a", None)], "largest") == [None]
    other = FaceCache(["other"], file_of(kept))
    assert other.look_up([("a", None)], "one") == [None]
    other.close()
    assert_same(kept.look_up([("a", None)], "one")[0], face())


def test_other_weights_names_devices_and_code_are_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("LEAMFAST_FACE_CACHE", raising=False)
    spec = DetectorSpec("retinaface", tmp_path / "a.pth")
    spec.weights.write_bytes(b"one")

    def known(spec: DetectorSpec, device: str = "cpu") -> bool:
        opened = face_cache(spec, device)
        assert opened is not None
        assert value_cache.cache_folder() == tmp_path / "leamfast"
        (found,) = opened.look_up([("a", None)], "one")
        opened.close()
        return found is not None

    first = face_cache(spec)
    assert first is not None
    first.keep([(("a", None), face())], "one")
    first.close()
    assert known(spec)
    assert not known(spec, "cuda")
    assert not known(replace(spec, name="dlib"))
    copy = replace(spec, weights=tmp_path / "b.pth")
    copy.weights.write_bytes(b"one")
    assert known(copy)
    copy.weights.write_bytes(b"three")
    assert not known(copy)
    monkeypatch.setattr(cache, "code_sha256", lambda: "of other sources")
    assert not known(spec)


@pytest.mark.parametrize("word", ["off", "OFF"])
def test_it_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LEAMFAST_FACE_CACHE", word)
    assert face_cache(DetectorSpec("retinaface", tmp_path / "not read")) is None
    assert not (tmp_path / "cache").exists()


def test_two_processes_write_at_once(kept: FaceCache, notes: list[str]) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from leamfast.faces.alignment import FaceError\n"
        "from leamfast.faces.cache import FaceCache\n"
        "c = FaceCache(['detector'], Path(sys.argv[1]))\n"
        "for i in range(60):\n"
        "    rows = [((f'{name}{i}', None), FaceError(name)) for name in (sys.argv[2], 'both')]\n"
        "    c.keep(rows, 'one')\n"
    )
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file_of(kept)), name],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name in ("x", "y")
    ]  # fmt: skip
    for writer in writers:
        assert writer.communicate(timeout=120)[0] == ""
        assert writer.returncode == 0
    pictures = [(f"{name}{i}", None) for name in ("x", "y", "both") for i in range(60)]
    assert all(isinstance(found, FaceError) for found in kept.look_up(pictures, "one"))
    assert notes == []


@pytest.mark.parametrize("damage", ["html", "header", "middle"])
def test_a_damaged_file_is_set_aside_with_one_note(kept: FaceCache, notes: list[str], damage: str) -> None:
    rows = [((str(i), None), face(i, landmarks=True)) for i in range(100)]
    kept.keep(rows, "one")
    kept.close()
    data = bytearray(file_of(kept).read_bytes())
    if damage == "html":
        data = bytearray(b"<html>not found</html>" * 1000)
    elif damage == "header":
        data[:100] = bytes(100)
    else:
        data[4096:] = b"\xff" * (len(data) - 4096)
    file_of(kept).write_bytes(data)
    assert kept.look_up([("1", None)], "one") == [None]
    kept.keep(rows[:2], "one")
    assert_same(kept.look_up([("1", None)], "one")[0], rows[1][1])
    assert len(notes) == 1
    assert "was damaged" in notes[0]
    assert file_of(kept).with_name("faces.sqlite3.damaged").is_file()


def test_a_damaged_value_is_not_known(kept: FaceCache, notes: list[str]) -> None:
    kept.keep([((name, None), face()) for name in "abc"], "one")
    kept.close()
    connection = sqlite3.connect(file_of(kept))
    with connection:
        values = [row[0] for row in connection.execute("SELECT value FROM found")]
        for value, bad in zip(values, (values[0][:40] + b"!" + values[0][41:], b"", "text"), strict=True):
            connection.execute("UPDATE found SET value = ? WHERE value = ?", (bad, value))
    connection.close()
    assert kept.look_up([(name, None) for name in "abc"], "one") == [None] * 3
    assert notes == []


def test_a_locked_file_is_not_used(
    kept: FaceCache, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.keep([(("a", None), face())], "one")
    kept.close()
    monkeypatch.setattr(value_cache, "TIMEOUT", 0.05)
    other = sqlite3.connect(file_of(kept))
    other.execute("BEGIN IMMEDIATE")
    assert_same(kept.look_up([("a", None)], "one")[0], face())  # who reads does not wait for who writes
    for _ in range(3):
        kept.keep([(("b", None), face())], "one")
    assert kept.look_up([("a", None)], "one") == [None]
    assert notes == [f"face cache {file_of(kept)} is not used: database is locked"]
    other.close()


def test_a_folder_that_cannot_be_made_is_not_used(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "file").touch()
    kept = FaceCache(["detector"], tmp_path / "file" / "faces.sqlite3", notes.append)
    kept.keep([(("a", None), face())], "one")
    assert kept.look_up([("a", None)], "one") == [None]
    assert len(notes) == 1
    assert "is not used" in notes[0]


def test_a_full_cache_keeps_what_is_fresh_and_takes_no_more(kept: FaceCache, notes: list[str]) -> None:
    kept._values.limit = 400_000
    rows = [((str(i), None), face(i, landmarks=True)) for i in range(2000)]
    for _ in range(2):  # a data set that is larger than the cache, again and again
        for first in range(0, 2000, 20):
            kept.keep(rows[first : first + 20], "one")
    found = [one is not None for one in kept.look_up([picture for picture, _ in rows], "one")]
    assert 300 < sum(found) < 1000
    assert found[:300] == [True] * 300
    assert notes == []


def test_only_its_user_reads_the_file(kept: FaceCache) -> None:
    kept.keep([(("a", None), face())], "one")
    files = sorted(file_of(kept).parent.glob("faces.sqlite3*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_what_was_not_used_for_longest_goes(kept: FaceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept._values, "limit", 400_000)
    monkeypatch.setattr(value_cache, "FRESH", 0.0)
    clock = iter(range(1_000_000))
    monkeypatch.setattr(value_cache.time, "time", lambda: float(next(clock)))
    for i in range(1000):
        kept.keep([((str(i), None), face(i, landmarks=True))], "one")
        kept.look_up([("0", None)], "one")  # which is used again and again
    found = [one is not None for one in kept.look_up([(str(i), None) for i in range(1000)], "one")]
    assert found[0]
    assert not found[1]
    assert found[-100:] == [True] * 100
    assert 200 < sum(found) < 900


class _Corners:
    """A detector of made-up faces, where in the picture its pixels say; it counts the pictures it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Detection]:
        self.seen += 1
        shift = float(image.mean()) / 7
        points = (ARCFACE_TEMPLATE + shift).astype(np.float32)
        box = np.float32([10, 5, 100, 110]) + np.float32(shift)
        return [Detection(box, points, 0.99 if image[0].sum() % 3 else 0.9999)] * (1 + image.sum() % 5 // 4)

    def detect_many(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        return [self.detect(image) for image in images]


def test_crops_are_the_same_with_a_cache_and_image_by_image(
    kept: FaceCache, faces: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_folders(faces)
    (shard,) = plan_shards(manifest, 1000)
    detector = _Corners()

    def made(cache: FaceCache | None, held: int) -> tuple[Crops, int]:
        monkeypatch.setattr(crops, "HELD", held)
        detector.seen = 0
        finding = Finding(detector, cache=cache)
        return make_crops(shard, manifest.root, [112], finding, None, threads=2), detector.seen

    expected, seen = made(None, held=1)
    assert expected.rows
    assert expected.failures
    for cached, held in ((None, 16), (kept, 5), (kept, 16)):
        before = cached is not None and held == 16
        found, now = made(cached, held)
        assert now == (0 if before else seen)
        assert found.rows == expected.rows
        assert found.failures == expected.failures
        assert all(map(np.array_equal, found.images[112], expected.images[112]))
        assert all(map(np.array_equal, found.transforms[112], expected.transforms[112]))
    assert notes == []


def test_a_thousand_pictures_take_milliseconds(kept: FaceCache) -> None:
    rows = [((str(i), None), face(i)) for i in range(1000)]
    kept.keep(rows, "one")
    start = time.perf_counter()
    for first in range(0, 1000, 16):
        found = kept.look_up([picture for picture, _ in rows[first : first + 16]], "one")
        assert None not in found
    assert time.perf_counter() - start < 2  # 0.02 on an idle machine
