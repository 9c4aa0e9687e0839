"""Rows of `leamfast bench maps`: every one is right, and whatever is wrong is found before it is timed."""

import dataclasses
import sys

import pytest
import torch

from leamfast import RequestError
from leamfast_bench.maps import peers
from leamfast_bench.maps.benchmark import EVERYONE, SEVERAL
from leamfast_bench.maps.case import Case, Cell, make_case, spread
from leamfast_bench.maps.exact import exact
from leamfast_bench.maps.expert import expert_rows
from leamfast_bench.maps.gate import LIMITS, Seen, relative_error, tap_errors
from leamfast_bench.maps.measure import measure, prepare
from leamfast_bench.maps.ours import Explainers, our_rows
from leamfast_bench.maps.peers import peer_rows
from leamfast_bench.maps.row import Row, unseen
from tests.leam.conftest import small_iresnet  # noqa: F401 (a fixture)
from tests.leam.test_program import maps_by_hand

PEERS = [
    f"{package}, {form}"
    for package in ("pytorch-grad-cam", "captum", "torchcam")
    for form in ("in one pass", "as documented")
]
ROWS = ["loop by hand", "loop by hand, channels_last", "bare forward and backward", *PEERS]


@pytest.fixture
def single(small_iresnet) -> Case:  # noqa: F811
    return make_case(small_iresnet, Cell("small", 5, 3, 1, EVERYONE, 2))


@pytest.fixture
def several(small_iresnet) -> Case:  # noqa: F811
    return make_case(small_iresnet, Cell("small", 5, 2, 3, SEVERAL, 2))


def all_rows() -> dict[str, Row]:
    rows = [*our_rows(Explainers()), *expert_rows(), *peer_rows()]
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_a_case_is_what_its_cell_says(single, several):
    assert single.taps == ("conv1", "layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2", "layer4.0.conv2")
    assert single.images.shape == (3, 3, 32, 32)
    assert single.images.is_contiguous()
    assert single.references.shape == (3, 16)
    assert several.references.shape == (2, 3, 16)
    again = make_case(single.model, Cell("small", 5, 3, 1, (), 2))
    assert torch.equal(again.images, single.images)
    assert torch.equal(again.references, single.references)
    assert single.images.abs().amax() <= 1
    assert single.images.std() > 0.1


@pytest.mark.parametrize(
    ("available", "wanted", "taken"),
    [(9, 9, [*range(9)]), (9, 1, [4]), (9, 5, [0, 2, 4, 6, 8]), (3, 9, [0, 1, 2]), (1, 9, [0])],
)
def test_taps_are_spread_over_those_there_are(available, wanted, taken):
    assert spread(available, wanted) == taken


def test_the_right_answer_is_that_of_other_tests(single):
    wanted = exact(single)
    known = maps_by_hand(single.model, single.taps, single.images, single.references)
    for tap in single.taps:
        torch.testing.assert_close(wanted.maps[tap], known[tap], rtol=1e-9, atol=1e-14)
        product = (wanted.acts[tap] * wanted.grads[tap].clamp_min(0)).sum(1).clamp_min(0)
        torch.testing.assert_close(product, known[tap], rtol=1e-9, atol=1e-14)
        assert torch.equal(wanted.wanted(tap, "product"), wanted.acts[tap] * wanted.grads[tap])


def test_the_right_answer_for_several_references_is_that_of_each(several):
    wanted = exact(several)
    assert not wanted.acts
    for i in range(3):
        one = exact(dataclasses.replace(several, references=several.references[:, i]))
        for tap in several.taps:
            torch.testing.assert_close(wanted.maps[tap][:, i], one.maps[tap], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["leamfast eager", *ROWS])
def test_every_row_agrees_with_float64(single, name):
    result, call = prepare(all_rows()[name], single, exact(single))
    assert result["why"] == ""
    assert call is not None
    assert tuple(result["errors"]) == single.taps[: 1 if name.startswith("bare") else None]
    assert 0 < result["error"] < 1e-4 < result["limit"]
    for _ in range(2):  # and goes on to do so
        seen = Seen()
        call(seen)
        assert max(tap_errors(seen, exact(single), tuple(result["errors"])).values()) < 1e-4


@pytest.mark.parametrize(
    "name",
    ["leamfast eager", "leamfast eager, batch repeated", "loop by hand", "loop by hand, channels_last"],
)
def test_several_references_agree_with_float64(several, name):
    result, call = prepare(all_rows()[name], several, exact(several))
    assert call is not None
    assert tuple(result["errors"]) == several.taps
    assert result["error"] < 1e-4


@pytest.mark.parametrize("name", ROWS)
def test_rows_leave_the_model_as_it_was(single, name):
    before = {key: value.clone() for key, value in single.model.network.state_dict().items()}
    call = all_rows()[name].make(single)
    call(unseen)
    assert all(torch.equal(value, before[key]) for key, value in single.model.network.state_dict().items())
    for module in single.model.network.modules():
        assert not module._forward_hooks
    for parameter in single.model.network.parameters():
        assert parameter.grad is None
    assert torch.is_grad_enabled()


def test_as_documented_parameters_are_as_the_user_finds_them(single):
    assert all(parameter.requires_grad for parameter in single.trainable.parameters())
    assert not any(parameter.requires_grad for parameter in single.frozen().parameters())


@pytest.mark.parametrize("name", PEERS)
def test_a_wrong_sign_in_a_peer_is_found(single, monkeypatch, name):
    real = torch.cosine_similarity
    monkeypatch.setattr(torch, "cosine_similarity", lambda *args, **kwargs: 1 - real(*args, **kwargs))
    row = all_rows()[name]
    call = row.make(single)
    monkeypatch.undo()
    wanted = exact(single)
    monkeypatch.setattr(torch, "cosine_similarity", lambda *args, **kwargs: 1 - real(*args, **kwargs))
    result, timed = prepare(dataclasses.replace(row, make=lambda case: call), single, wanted)
    assert timed is None
    assert result["error"] > 0.9
    assert result["why"].startswith("wrong: off by ")


@pytest.mark.parametrize("package", ["pytorch-grad-cam", "captum", "torchcam"])
def test_another_layer_in_a_peer_is_found(single, package):
    """Layers that are mixed up have other shapes, or other values."""
    shifted = dataclasses.replace(single, taps=(*single.taps[1:], "layer4.0.conv1"))
    for make in peers.PACKAGES[package]:
        call = make(shifted)

        def relabelled(see, call=call):
            call(lambda tap, **found: see(single.taps[shifted.taps.index(tap)], **found))

        result, timed = prepare(Row("x", "one pass", lambda case: relabelled), single, exact(single))
        assert timed is None
        assert result["why"].startswith("wrong")


def planted(change, checked=(1, 2, 5)) -> Row:
    """Our row, whose maps are changed from some call on."""
    ours = next(iter(our_rows(Explainers())))

    def make(case):
        real, count = ours.make(case), 0

        def call(see):
            nonlocal count
            count += 1

            def between(tap, map):
                if (changed := change(count, tap, map)) is not None:
                    see(tap, map=changed)

            real(between)

        return call

    return Row("planted", "ours", make, checked)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda count, tap, map: -map, 2.0),
        (lambda count, tap, map: 1.02 * map, 0.02),
        (lambda count, tap, map: map if count < 2 else 1.4 * map, 0.4),
        (lambda count, tap, map: map if count < 5 else 1.4 * map, 0.4),
        (lambda count, tap, map: map if tap == "conv1" else None, float("inf")),
        (lambda count, tap, map: map.transpose(1, 2)[:, :1], float("inf")),
        (lambda count, tap, map: torch.full_like(map, torch.nan), float("inf")),
    ],
)
def test_what_is_wrong_is_not_timed(single, change, error):
    row = planted(change)
    result, call = prepare(row, single, exact(single))
    assert call is None
    assert result["error"] == pytest.approx(error, rel=1e-2)
    assert result["why"] == f"wrong: off by {result['error']:.2g} from float64, where 0.01 is allowed"
    notes: list[str] = []
    (only,) = measure(single, Cell("small", 5, 3, 1, ("ours",), 2), [row], exact(single), notes.append)
    assert "median_seconds" not in only
    assert notes == [f"  planted: {only['why']}"]


def test_less_precision_may_be_further_off(single):
    assert LIMITS["fp32"] < LIMITS["tf32"] < LIMITS["bf16"] < 1
    row = dataclasses.replace(planted(lambda count, tap, map: 1.02 * map), precision="bf16")
    result, call = prepare(row, single, exact(single))
    assert call is not None
    assert result["error"] == pytest.approx(0.02, rel=1e-2)


def test_the_relative_error():
    wanted = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2, dtype=torch.float64)) == float("inf")
    assert relative_error(torch.ones(1), wanted) == float("inf")


def refused(case):
    raise RequestError("backend must be had, got none")


def broken(case):
    raise ValueError("first line\nsecond line")


def test_what_cannot_be_had_says_why_and_the_others_go_on(single, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)
    rows = [Row("refused", "ours", refused), Row("broken", "one pass", broken)]
    rows += [all_rows()["torchcam, in one pass"], all_rows()["loop by hand"]]
    found = measure(single, Cell("small", 5, 3, 1, EVERYONE, 2), rows, exact(single), lambda text: None)
    whys = {result["row"]: result["why"] for result in found}
    assert whys["refused"] == "backend must be had, got none"
    assert whys["broken"] == "failed: ValueError: first line"
    assert whys["torchcam, in one pass"].endswith(
        "pip install 'leamfast[bench]', and grad-cam with --no-deps"
    )
    assert whys["loop by hand"] == ""
    assert [result["row"] for result in found if "median_seconds" in result] == ["loop by hand"]


def test_documented_rows_take_part_in_few_rounds(single):
    rows = [all_rows()[name] for name in ("captum, as documented", "loop by hand")]
    cell = Cell("small", 5, 3, 1, EVERYONE, 5)
    found = measure(single, cell, rows, exact(single), lambda text: None)
    assert [len(result["seconds"]) for result in found] == [3, 5]
    for result in found:
        assert result["images_per_second"] == pytest.approx(3 / result["median_seconds"])
        assert result["quartiles"][0] <= result["images_per_second"] <= result["quartiles"][1]
        assert result["set_up_seconds"] >= 0
