"""`leamfast bench occlusion`: its loop, its checks, its stages, its tables, and a tiny form end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.datasets.synthetic import FaceGenerator
from leamfast.errors import RequestError
from leamfast.models.loading import load_model
from leamfast.store.occlusion import CONTROLS as KNOWN
from leamfast_bench.occlusion import benchmark, busy, memory, stages
from leamfast_bench.occlusion.bars import bars
from leamfast_bench.occlusion.benchmark import EQUAL, WrongDropError, check_equal
from leamfast_bench.occlusion.case import Counted
from leamfast_bench.occlusion.drawn import with_weights
from leamfast_bench.occlusion.form import CONTROLS, FULL, SMALL
from leamfast_bench.occlusion.loop import Given, Loop
from leamfast_bench.occlusion.tables import tables
from leamfast_bench.registry import Options, run

TINY = replace(
    SMALL,
    models=("a:=demo", "b:=demo=random:1"),
    layers="conv1,layer4.0.conv2",
    percents=(1.0, 20.0),
    rounds=2,
    remembered=(4, 8),
)
NAMES = ["occlusion_bars", "occlusion_speed", "occlusion_stages", "occlusion_memory", "occlusion_left_out"]
SIZE = 112


def quiet(text: str) -> None:
    pass


def tiny(patch, **options):
    patch.setattr(benchmark, "SMALL", TINY)
    found = run("occlusion", Options(small=True, note=quiet, **options))
    return json.loads(json.dumps(found))["results"]


@pytest.fixture(scope="module")
def on_cpu():
    with pytest.MonkeyPatch.context() as patch:
        return tiny(patch)


def test_a_tiny_form(on_cpu):
    ours, loop, pairs = on_cpu["rows"]
    assert [row["row"] for row in on_cpu["rows"]] == ["leamfast", "loop", "loop over pairs"]
    assert [row["images"] for row in on_cpu["rows"]] == [2, 1, 1]
    # Three maps of two sources: own, population and two draws of shifted and of another's, by two percents.
    maps, drawn = 2 * 3 * 2 * 6, 2 * 5
    assert loop["embedded"] == 2 * (maps + 6 * drawn) + 2  # each model saw the image as it is too
    assert ours["embedded"] <= 2 * (maps + drawn) + 2
    assert ours["embedded"] > maps
    assert pairs["embedded"] == 2 * loop["embedded"]  # each image has two references
    for row in on_cpu["rows"]:
        low, high = row["quartiles"]
        assert 0 < low <= row["median_seconds"] <= high
        assert row["embedded_a_second"] == pytest.approx(row["embedded"] / row["median_seconds"], rel=0.01)
    assert loop["times_ours"] == loop["median_seconds"] / ours["median_seconds"]
    assert on_cpu["error"] <= EQUAL
    assert on_cpu["backends"] == {"a": "eager", "b": "eager"}
    assert (on_cpu["utilisation"], on_cpu["bars"], on_cpu["maps"]) == (None, [], 3)


def test_where_the_time_goes(on_cpu):
    shares = on_cpu["stages"]
    assert list(shares) == list(stages.STAGES)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    assert shares["embedding"] == max(shares.values())


def test_memory_by_the_number_of_images(on_cpu):
    assert [case["images"] for case in on_cpu["memory"]] == [4, 8]
    for case in on_cpu["memory"]:
        assert case["held_bytes"] is None or 0 < case["held_bytes"] < 1 << 30


def test_tables(on_cpu):
    made = tables(on_cpu)
    assert [table.name for table in made] == NAMES
    for table in made:
        assert all(len(row) == len(table.columns) for row in table.rows)
    _, speed, where, _, left_out = made
    assert speed.rows[1][0] == "loop, 1 images timed"
    assert speed.rows[0][-1] == "1.0"
    assert len(where.rows) == len(stages.STAGES)
    assert "--device cuda" in dict(left_out.rows)["share of the time in which the device computes"]


def test_what_was_asked(on_cpu):
    results = {**on_cpu, "memory": [{"images": n, "held_bytes": b} for n, b in ((10, 100), (40, 124))]}
    times = (1.0, 9.9, 10.0)
    results |= {"rows": [{**row, "times_ours": n} for row, n in zip(on_cpu["rows"], times, strict=True)]}
    speed, of_pairs, growth = bars(results)
    assert (speed["found"], speed["asked"], speed["met"]) == (9.9, 10, False)
    assert "the loop over pairs takes" in of_pairs["what"]
    assert of_pairs["met"]
    assert (growth["found"], growth["met"]) == (1.24, True)
    of_gpu = bars(results | {"utilisation": 0.91})[0]
    assert (of_gpu["asked"], of_gpu["met"]) == (0.9, True)
    wider = [{"images": n, "held_bytes": b} for n, b in ((10, 100), (40, 126))]
    assert not bars(results | {"memory": wider})[-1]["met"]
    shown = tables({**results, "bars": bars(results)})[0]
    assert [row[2:] for row in shown.rows] == [
        ("at least 10", "no"),
        ("at least 10", "yes"),
        ("at most 1.25", "yes"),
    ]
    busy_rows = tables(results | {"stages": None, "utilisation": 0.5})[2].rows
    assert busy_rows == (("the device computes", "50.0%"),)


def group(drops: np.ndarray):
    arrays = type("Arrays", (), {"drop": drops})
    return {("a", "b"): (None, arrays)}


@pytest.mark.parametrize("value", [2 * EQUAL, np.nan, np.inf])
def test_a_wrong_drop_is_not_timed(value):
    wanted = np.zeros((1, 2, 1, 1, 1, 1), np.float32)
    found = np.zeros((3, 2, 1, 1, 1, 1), np.float32)
    found[1:] = 5  # images that the loop did not do
    assert check_equal(group(found), {("a", "b"): wanted}) == 0
    found[0, 1] = value
    with pytest.raises(WrongDropError, match="drops of a by maps of b: off by"):
        check_equal(group(found), {("a", "b"): wanted})


def test_what_is_missing_on_both_sides_is_equal():
    both = np.full((1, 1, 1, 1, 1, 1), np.nan, np.float32)
    assert check_equal(group(both), {("a", "b"): both}) == 0


def test_a_wrong_pass_ends_the_benchmark(monkeypatch):
    real = benchmark.given

    def other_orders(*args):
        about = real(*args)
        return replace(about, ranks={name: ranks[:, :, ::-1] for name, ranks in about.ranks.items()})

    monkeypatch.setattr(benchmark, "given", other_orders)
    with pytest.raises(WrongDropError):
        tiny(monkeypatch)


class Bright:
    """A model whose embedding says how bright the left half of an image is, and how bright the right one."""

    def preprocess(self, images):
        return torch.from_numpy(images).float()

    def embed(self, images):
        half = images.shape[2] // 2
        return torch.stack(
            [images[:, :, :half].mean(dim=(1, 2, 3)), images[:, :, half:].mean(dim=(1, 2, 3))], 1
        )


def test_the_loop_by_hand():
    """A white picture of 4 x 4 of which the brightest quarter, the left upper one, is filled."""
    small = np.array([[2.0, 0], [0, 0]], np.float32)[None, None]
    ranks = np.arange(16).reshape(1, 1, 4, 4)
    about = Given(
        crops=np.full((1, 4, 4, 3), 255, np.uint8),
        maps={"s": {"tap": {"own": small}}},
        ranks={"centre": ranks},
        moves=np.array([[[0, 2], [2, 0]]]),
        references={"m": [np.eye(2)]},
    )
    loop = Loop(about, {"m": Bright()}, (12.5,), ("own", "shifted", "centre"), 2)
    (drops,) = loop(1).values()
    assert drops.shape == (1, 1, 1, 3, 1, 2)
    assert loop.embedded == 1 + 1 + 2 + 1

    def cosine(left, right):
        return (left + right) / np.hypot(left, right) / 2

    filled = cosine(1, 1) - cosine(6 / 8, 1)
    # The two brightest pixels lie in the left half; moved by two across, in the right one; moved down, not.
    np.testing.assert_allclose(drops[0, 0, 0, :, 0], [[filled] * 2] * 3, atol=1e-6)
    ranks[0, 0] = ranks[0, 0].T
    ranks[0, 0, :2, 0], ranks[0, 0, 0, 2:] = 9, [0, 1]
    (drops,) = loop(1).values()
    np.testing.assert_allclose(drops[0, 0, 0, 2, 0], filled, atol=1e-6)  # in the right half
    half = cosine(1, 1) - cosine(7 / 8, 7 / 8)
    ranks[0, 0, 0, 0], ranks[0, 0, 0, 3] = 1, 9
    (drops,) = loop(1).values()
    np.testing.assert_allclose(drops[0, 0, 0, 2, 0], half, atol=1e-6)  # one in either


def test_pairs_by_hand():
    """The same values; two references, for each of which everything is embedded again."""
    about = Given(
        crops=np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3),
        maps={"s": {"tap": {"own": np.ones((1, 1, 2, 2), np.float32)}}},
        ranks={},
        moves=np.array([[[0, 2]]]),
        references={"m": [np.array([[1.0, 0], [0.6, 0.8]])]},
    )
    loops = [Loop(about, {"m": Bright()}, (25.0,), ("own", "shifted"), 1, pairs) for pairs in (False, True)]
    (once,), (again,) = (loop(1).values() for loop in loops)
    np.testing.assert_allclose(once, again, atol=1e-6)
    assert abs(once).min() > 0
    assert [loop.embedded for loop in loops] == [3, 6]


def test_drawn_weights_tell_faces_apart(tmp_path):
    generator = FaceGenerator(seed=3)
    faces = np.stack([generator.render(identity=n, image=0).image for n in range(3)])
    cosines = []
    for spec in (with_weights("mobilefacenet=drawn", tmp_path), "mobilefacenet=random:0"):
        model = load_model(spec)
        units = torch.nn.functional.normalize(model.embed(model.preprocess(faces)))
        cosines.append(float((units @ units.T).fill_diagonal_(-1).max()))
    assert cosines[0] < 0.99
    assert cosines[1] > 0.9999  # what it is there for
    assert with_weights("demo", tmp_path) == "demo"


def test_programs_that_count():
    from leamfast.leam.program import Program
    from leamfast.leam.taps import select_taps

    model = load_model("demo")
    program = Program(model, select_taps(model, ("conv1",)))
    counted = Counted(program)
    images = torch.randn(3, 3, SIZE, SIZE)
    torch.testing.assert_close(counted.embed(images), program.embed(images), rtol=0, atol=0)
    counted.embed(images[:2])
    assert (counted.images, counted.model) == (5, model)


def test_stages_that_are_not_called():
    with pytest.raises(RuntimeError, match=r"of occlusion_supports\.py was not called"):
        stages.shares_of_stages(lambda: None)


@pytest.mark.parametrize(
    ("ranges", "length"),
    [([], 0), ([(1, 2)], 1), ([(5, 6), (0, 2), (1, 3)], 4), ([(0, 10), (2, 3), (9, 11)], 11)],
)
def test_time_that_is_covered(ranges, length):
    assert busy.covered(ranges) == length


def test_memory_that_is_not_told(on_cpu, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "apart", lambda *args: None)
    monkeypatch.setattr(memory, "explained", lambda *args: tmp_path)
    found = memory.measure_memory(TINY, 1, "cpu", tmp_path, quiet)
    assert found == [{"images": 4, "held_bytes": None}, {"images": 8, "held_bytes": None}]
    results = {**on_cpu, "memory": found}
    assert len(bars(results)) == 2  # of the loops
    assert [row[1] for row in tables(results)[3].rows] == ["not told", "not told"]


def test_options_that_mean_nothing():
    with pytest.raises(RequestError, match="--data means nothing to the benchmark occlusion"):
        run("occlusion", Options(data="photos"))


def test_the_full_form():
    """What the project says of its speed was measured on these."""
    assert FULL.percents == (1, 2, 5, 10, 20)
    assert (len(FULL.controls), FULL.seeds, len(FULL.models)) == (1 + 6, 3, 2)
    assert set(CONTROLS) <= set(KNOWN)
    assert FULL.rounds >= 3
    assert FULL.remembered[-1] >= 4 * FULL.remembered[0]


@pytest.mark.slow
def test_the_small_form_as_users_run_it(tmp_path):
    kept = tmp_path / "occlusion.json"
    done = CliRunner().invoke(app, ["bench", "occlusion", "--small", "--threads", "2", "--out", str(kept)])
    assert done.exit_code == 0, done.output
    assert "times ours" in done.stdout
    found = json.loads(kept.read_text())["results"]
    assert found["error"] <= EQUAL
    assert found["threads"] == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_a_tiny_form_runs_on_a_gpu(monkeypatch):
    found = tiny(monkeypatch, device="cuda")
    assert 0 < found["utilisation"] <= 1
    assert found["stages"] is None
