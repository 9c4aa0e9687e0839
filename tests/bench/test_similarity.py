"""`leamfast bench similarity`: its maps and pairs, its checks, its tables, and a tiny form end to end."""

import itertools
import json
import math
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from leamfast.cli.main import app
from leamfast.errors import RequestError
from leamfast_bench.registry import Options, run
from leamfast_bench.similarity import approximate, benchmark, brackets, coefficients, exact, held, loops
from leamfast_bench.similarity.approximate import LOSSES, NOT_INSTALLED, Loss
from leamfast_bench.similarity.bars import bars
from leamfast_bench.similarity.explained import averaged
from leamfast_bench.similarity.form import FULL, SMALL
from leamfast_bench.similarity.pairs import Pairs, draw_pairs
from leamfast_bench.similarity.rows import WrongAnswerError, check_equal, threads
from leamfast_bench.similarity.tables import tables
from leamfast_kernels import emd, emd_pairs

TINY = replace(
    SMALL,
    people=3,
    images=2,
    grid=8,
    pairs=6,
    side=32,
    supports=4,
    approximated=3,
    compared=20,
    cells=6,
    held=(40,),
    tile=16,
    bracketed=12,
    checked=4,
    all_people=3,
)
NAMES = [
    "similarity_bars",
    "similarity_exact",
    "similarity_approximate",
    "similarity_bc",
    "similarity_memory",
    "similarity_brackets",
    "similarity_left_out",
]


def quiet(text: str) -> None:
    pass


def tiny(patch: pytest.MonkeyPatch, **options: object) -> dict:
    patch.setattr(benchmark, "SMALL", TINY)
    found = run("similarity", Options(small=True, note=quiet, **options))
    return json.loads(json.dumps(found))["results"]


@pytest.fixture(scope="module")
def on_cpu() -> dict:
    """Results of a tiny form on two threads, without geomloss."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "geomloss", None)
        return tiny(patch, threads=2)


@pytest.fixture
def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((5, 6, 6), generator=generator).pow_(4)
    return draw_pairs("some maps", [maps], 4)


def fake_geomloss(patch: pytest.MonkeyPatch, value: float) -> list[dict]:
    """A geomloss whose losses are all the same; the arguments it is given."""
    given: list[dict] = []

    class SamplesLoss:
        def __init__(self, loss: str, **arguments: object) -> None:
            given.append({"loss": loss, **arguments})

        def __call__(self, a, x, b, y):
            assert a.shape == b.shape == x.shape[:2] == y.shape[:2]
            return torch.full((len(a),), value)

    patch.setitem(sys.modules, "geomloss", SimpleNamespace(SamplesLoss=SamplesLoss))
    return given


def whole(found: dict) -> None:
    """Every table of results has all its columns."""
    shown = tables(found)
    assert [table.name for table in shown] == NAMES
    for table in shown:
        assert all(len(row) == len(table.columns) for row in table.rows), table.name


def timed(row: dict) -> bool:
    low, high = row["quartiles"]
    return 0 < low <= row["median_seconds"] <= high and row["times_ours"] > 0


def test_a_tiny_form_runs_and_its_rows_are_whole(on_cpu):
    assert (on_cpu["source"], on_cpu["model"], on_cpu["threads"]) == ("6 synthetic faces", "demo", 2)
    assert [case["kind"] for case in on_cpu["exact"]] == ["single maps", "identity means", "supports"]
    for case in on_cpu["exact"]:
        assert [row["row"] for row in case["rows"]] == [
            "leamfast",
            "leamfast, 1 thread",
            "loop over ot.emd2",
            "ot.emd2 in 2 threads",
        ]
        assert all(timed(row) and row["error"] <= 1e-9 for row in case["rows"])
        assert case["rows"][1]["times_ours_alone"] == 1
    assert [case["grid"] for case in on_cpu["exact"]] == [[8, 8], [8, 8], [32, 32]]
    assert on_cpu["exact"][2]["points"] == 10  # one percent of 32 x 32
    for case in on_cpu["approximate"]:
        own, bound, *others = case["rows"]
        assert (own["certificate"], bound["certificate"]) == ("exact", "lower bound")
        assert own["largest_error"] <= 1e-9
        assert 0 < bound["of_distance"] <= 1
        assert timed(own)
        assert timed(bound)
        assert [(row["row"], row["why"]) for row in others] == [(loss.name, NOT_INSTALLED) for loss in LOSSES]
    assert [row["row"] for row in on_cpu["coefficients"]["rows"]] == [
        "leamfast",
        "leamfast, as two sets",
        "bare matrix product",
    ]
    assert all(timed(row) and row["error"] <= 1e-5 for row in on_cpu["coefficients"]["rows"])
    (memory,) = on_cpu["held"]
    assert (memory["maps"], memory["matrix_bytes"]) == (40, 4 * 40**2)
    for name in ("held_bytes", "peak_bytes"):
        assert memory[name] is None or memory[name] < 1 << 28
    assert (on_cpu["brackets"], on_cpu["all_pairs"], on_cpu["bars"]) == ([], None, [])


def test_tables_of_a_cpu_say_what_is_absent(on_cpu):
    whole(on_cpu)
    *_, brackets_table, left_out = tables(on_cpu)
    assert brackets_table.rows == ()
    said = dict(left_out.rows)
    assert "--device cuda" in said["brackets"]
    assert said["geomloss, blur 0.05"] == NOT_INSTALLED
    assert len(left_out.rows) == len(set(left_out.rows))


def test_the_path_of_a_gpu(monkeypatch):
    """As it runs there, but in plain torch: brackets are made and the rows of the CPU are absent."""
    monkeypatch.setattr(benchmark, "on_gpu", lambda device: True)
    distance = import_module("leamfast_kernels.emd.distance")  # `emd` is a function too
    monkeypatch.setattr(distance, "_on_gpu", lambda maps: True)
    given = fake_geomloss(monkeypatch, 0.1)
    found = tiny(monkeypatch)
    whole(found)
    assert (found["exact"], found["approximate"]) == ([], [])
    assert "leave --device out" in found["left_out"]["exact"]
    assert [case["case"] for case in found["brackets"]] == ["single maps of 8x8", "identity means of 8x8"]
    for case in found["brackets"]:
        euclidean, l1, solved, *others = case["rows"]
        assert (euclidean["row"], l1["row"]) == ("brackets, Euclidean", "brackets, L1")
        for row in (euclidean, l1):
            assert timed(row)
            assert 0 <= row["share_solved"] < 1  # some were bracketed
            assert 0 < row["median_width"] <= 0.02
        assert timed(solved)
        assert [row["row"] for row in others] == [loss.name for loss in LOSSES]
        assert all(timed(row) and row["certificate"] == "none" for row in others)
    assert given[0] == {"loss": "sinkhorn", "p": 1, "blur": 0.05, "debias": True, "scaling": 0.5}
    assert found["all_pairs"]["pairs"] == 3
    assert found["all_pairs"]["seconds"] > 0
    asked = {bar["what"]: bar for bar in bars(found)}
    assert asked["single maps of 8x8, brackets, L1: microseconds a pair"]["asked"] == 40
    assert asked["all pairs of 3 identity means, 3 brackets: s"]["met"]


def test_what_was_asked(on_cpu):
    exact_bars, others = bars(on_cpu)[:3], bars(on_cpu)[3:]
    assert [bar["asked"] for bar in exact_bars] == [4, 6, 3]
    loop = on_cpu["exact"][0]["rows"][2]
    assert exact_bars[0]["found"] == loop["times_ours"]
    assert exact_bars[0]["met"] == (loop["times_ours"] >= 4)
    assert (others[0]["asked"], others[0]["which"]) == (1.5, "most")
    shown = tables({**on_cpu, "bars": bars(on_cpu)})[0]
    assert shown.rows[0][2] == "at least 4"


@pytest.mark.parametrize(
    ("peaks", "met"), [((9, 20, 24), True), ((9, 20, 26), False), ((9, None, None), None)]
)
def test_memory_that_grows_is_not_what_was_asked(on_cpu, peaks, met):
    counted = [{"maps": 100 * n, "tile": 50, "held_bytes": peak} for n, peak in enumerate(peaks)]
    said = [bar for bar in bars({**on_cpu, "held": counted}) if bar["what"].startswith("tiles")]
    assert [bar["met"] for bar in said] == ([] if met is None else [met])


def test_wide_brackets_are_not_what_was_asked(on_cpu):
    row = {"row": "brackets, L1", "median_seconds": 1e-6}
    results = {**on_cpu, "brackets": [{"case": "maps", "rows": [{**row, "median_width": 0.009}]}]}
    assert bars(results)[-1]["met"]
    for width in (0.02, None):
        wide = {**on_cpu, "brackets": [{"case": "maps", "rows": [{**row, "median_width": width}]}]}
        assert not bars(wide)[-1]["met"]


def test_a_wrong_distance_is_not_timed(pairs):
    solve = loops.full_grid(pairs)
    with pytest.raises(WrongAnswerError, match="some maps, leamfast: off by 1e-06 .* 1e-09 is allowed"):
        exact.measure_exact(pairs, lambda which: solve(which) * (1 + 1e-6), 1, 1, quiet)


@pytest.mark.parametrize("value", [float("nan"), 1.1])
def test_values_that_are_not_equal(value):
    with pytest.raises(WrongAnswerError, match="here: off by"):
        check_equal("here", torch.tensor([1.0, value]), torch.ones(2))


def test_both_loops_have_our_values(pairs):
    wanted = exact.exact_distances(pairs)
    for solve in (loops.full_grid(pairs), loops.supports(pairs)):
        for count in (1, 2):
            check_equal("a loop", loops.pooled(solve, len(pairs), count), wanted)


def test_a_bound_above_the_distance_is_wrong(pairs, monkeypatch):
    monkeypatch.setattr(approximate, "emd_lower_bound", lambda p, q: 1.01 * emd(p, q).value)
    with pytest.raises(WrongAnswerError, match="emd_lower_bound: above the distance"):
        approximate.measure_approximate(pairs, exact.exact_distances(pairs), 2, 1, quiet)


def test_losses_are_compared_with_the_distance(pairs, monkeypatch):
    fake_geomloss(monkeypatch, 0.25)
    wanted = exact.exact_distances(pairs)
    found = approximate.measure_approximate(pairs, wanted, 2, 1, quiet)
    row = found["rows"][2]
    assert (row["row"], row["pairs"], row["certificate"]) == ("geomloss, blur 0.05", 2, "none")
    errors = (0.25 / wanted[:2] - 1).abs()
    assert row["largest_error"] == pytest.approx(float(errors.max()))
    assert row["of_distance"] == pytest.approx(float((0.25 / wanted[:2]).median()))
    fake_geomloss(monkeypatch, float("nan"))
    with pytest.raises(WrongAnswerError, match="geomloss, blur 0.05: a value is no number"):
        approximate.measure_approximate(pairs, wanted, 2, 1, quiet)


def test_the_losses_of_geomloss_itself(pairs):
    pytest.importorskip("geomloss", reason="geomloss is not installed")
    found = Loss(0.002, debias=False, scaling=0.9)(pairs).double()
    torch.testing.assert_close(found, exact.exact_distances(pairs), rtol=0.2, atol=0)


def test_a_wrong_coefficient_is_not_timed(monkeypatch):
    monkeypatch.setattr(coefficients, "bhattacharyya_matrix", lambda p, q=None: torch.ones(len(p), len(p)))
    with pytest.raises(WrongAnswerError, match="BC, leamfast: off by"):
        coefficients.measure_coefficients(6, 4, 1, "cpu", quiet)


def test_a_wrong_tile_is_found(monkeypatch):
    held.tiles_growth(40, 4, 16, 1, "cpu")
    real = held.bhattacharyya_tiles

    def smaller(maps, tile):
        return ((rows, columns, 0.9 * bc) for rows, columns, bc in real(maps, tile=tile))

    monkeypatch.setattr(held, "bhattacharyya_tiles", smaller)
    with pytest.raises(WrongAnswerError, match="tiles of 40 maps: off by 0.1"):
        held.tiles_growth(40, 4, 16, 1, "cpu")


def test_missing_tiles_are_found(monkeypatch):
    real = held.bhattacharyya_tiles
    monkeypatch.setattr(
        held, "bhattacharyya_tiles", lambda maps, tile: itertools.islice(real(maps, tile=tile), 1)
    )
    with pytest.raises(WrongAnswerError, match="tiles of 40 maps: off by inf"):
        held.tiles_growth(40, 4, 16, 1, "cpu")


def test_a_distance_outside_of_its_bracket_is_found(pairs, monkeypatch):
    def wrong(*args, method="auto", **options):
        found = emd_pairs(*args, method="exact", **options)
        return found if method == "exact" else replace(found, upper=found.upper * 0.99)

    monkeypatch.setattr(brackets, "emd_pairs", wrong)
    with pytest.raises(WrongAnswerError, match="brackets, Euclidean: a distance of some maps lies outside"):
        brackets.measure_brackets(pairs, 2, 1, "cpu", quiet)


def test_pairs_are_drawn_evenly_and_once():
    groups = [torch.rand(5, 2, 2), torch.rand(4, 2, 2), torch.rand(1, 2, 2)]
    drawn = draw_pairs("maps", groups, 9)
    listed = {tuple(pair) for pair in drawn.listed.tolist()}
    assert len(listed) == len(drawn) == 6
    assert all(i < j for i, j in listed)
    assert sum(j < 5 for _, j in listed) == sum(i >= 5 and j < 9 for i, j in listed) == 3
    assert drawn.listed.equal(draw_pairs("maps", groups, 9).listed)
    assert len(draw_pairs("maps", groups, 100)) == 10 + 6
    assert drawn.first(2).listed.equal(drawn.listed[:2])
    with pytest.raises(ValueError, match="two maps of a layer to be compared, got none of maps"):
        draw_pairs("maps", groups[2:], 9)


@pytest.mark.parametrize("cells", [(5, 5), (7, 12), (8, 8), (4, 4)])
def test_averaging_keeps_mass_and_its_centre(cells):
    maps = torch.rand(3, *cells)
    found = averaged(maps, 4)
    assert found.shape == (3, 4, 4)
    torch.testing.assert_close(found.sum(dim=(1, 2)), maps.sum(dim=(1, 2)))
    flat = torch.ones(1, *cells)
    torch.testing.assert_close(averaged(flat, 4), torch.full((1, 4, 4), cells[0] * cells[1] / 16))
    if cells == (8, 8):
        torch.testing.assert_close(found, 4 * torch.nn.functional.avg_pool2d(maps, 2))


def test_supports_keep_their_values():
    maps = torch.rand(3, 7, 7)
    found = exact.on_supports(maps, 28, 5)
    assert found.shape == (3, 28, 28)
    assert ((found > 0).flatten(1).sum(dim=1) == round(0.05 * 28**2)).all()


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads(before + 1):
        {}["nothing"]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detector": ("dlib",)}, "--detector is for photos: give --data DIR with it, or neither"),
        ({"data": ".", "detector": ("dlib", "dlib")}, "benchmark similarity takes one --detector, got 2"),
    ],
)
def test_what_the_user_did_wrong(options, words):
    with pytest.raises(RequestError, match=words):
        run("similarity", Options(**options))


def test_a_model_without_fine_layers(monkeypatch):
    monkeypatch.setattr(benchmark, "SMALL", replace(TINY, grid=57))
    with pytest.raises(RequestError, match="--model demo has no layer of 57x57 cells"):
        run("similarity", Options(small=True, note=quiet))


def test_the_full_form():
    """What the project says of its speed was measured on these."""
    assert (FULL.grid, FULL.side, FULL.percent) == (28, 112, 1)
    assert (FULL.compared, FULL.cells) == (2000, 56)
    assert {1000, 20_000} <= set(FULL.held)
    few, many = (math.ceil(count / math.ceil(count / FULL.tile)) for count in FULL.held[-2:])
    assert few == many  # maps of a side of a tile, so that what they take can be compared
    assert FULL.all_people == 1000
    assert FULL.rounds >= 5


@pytest.mark.slow
def test_photos_of_the_users(shared_data, tmp_path):
    for person in ("id04", "id11"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for file in sorted((shared_data / "photos" / person).iterdir())[:2]:
            (tmp_path / "people" / person / file.name).symlink_to(file)
    with pytest.MonkeyPatch.context() as patch:
        found = tiny(
            patch,
            data=tmp_path / "people",
            detector=(f"retinaface={shared_data / 'mobilenet0.25_Final.pth'}",),
            model=f"mobilefacenet={shared_data / 'mobilefacenet.pt'}",
        )
    assert (found["source"], found["model"], found["images"], found["people"]) == (
        "photos",
        "mobilefacenet",
        4,
        2,
    )
    whole(found)


@pytest.mark.slow
def test_the_small_form_as_users_run_it(tmp_path):
    kept = tmp_path / "similarity.json"
    done = CliRunner().invoke(app, ["bench", "similarity", "--small", "--threads", "2", "--out", str(kept)])
    assert done.exit_code == 0, done.output
    assert "loop over ot.emd2" in done.stdout
    found = json.loads(kept.read_text())["results"]
    whole(found)
    assert np.isfinite([case["points"] for case in found["exact"]]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_a_tiny_form_runs_on_a_gpu(monkeypatch):
    found = tiny(monkeypatch, device="cuda")
    whole(found)
    assert all(row["share_solved"] < 1 for case in found["brackets"] for row in case["rows"][:2])
