"""Whether the bars hold, and what tables say, of scores made up by hand."""

import pytest

from leamfast_bench.truth.methods import FAITHFUL, PAPER
from leamfast_bench.truth.tables import checks, tables

GRIDS = {"layer1.0.prelu": 56, "layer2.0.prelu": 28, "layer3.0.prelu": 14}


def row(tap: str, model: str = "own", over: float = 10.0, **fields) -> dict:
    """A score of an activation inside a block, which holds unless said otherwise."""
    made = {
        "model": model,
        "method": FAITHFUL.name,
        "map": tap,
        "kind": "activation",
        "cells": GRIDS.get(tap),
    }
    made |= {
        "over": {"1": 20.0, "2": 15.0, "5": over, "10": 5.0},
        "over_low": over - 1,
        "over_high": over + 1,
    }
    made |= {"rank": 1, "pointing": 0.5, "recall": [0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8], "area": 0.9, "n": 12}
    if model == "own":
        made |= {"drop": 0.4, "drop_low": 0.3, "drop_high": 0.5, "shifted": 0.05, "on_face": 0.1}
    return made | fields


def planted(
    *rows: dict, region: str = "nose", kind: str = "plain", seed: int = 0, unreported: str = ""
) -> dict:
    about = {"region": region, "kind": kind, "seed": seed, "unreported": unreported, "auc": 0.99}
    return about | {"header": {"auc": "0.98765", "true_accept_rate": "0.87654"}, "scores": list(rows)}


def activations(**of_the_second) -> list[dict]:
    """The three activations, own and untrained; fields of the own one in the middle."""
    own = [row(tap, **(of_the_second if tap == "layer2.0.prelu" else {})) for tap in GRIDS]
    return [*own, *(row(tap, "untrained", over=1.0) for tap in GRIDS)]


def check(*rows: dict) -> dict:
    (found,) = checks({"models": [planted(*rows)]})
    return found


def test_the_bars_hold():
    assert check(*activations()) == {
        "model": "nose-plain-0",
        "cells": [56, 28, 14],
        "over": 10.0,
        "rank": 1,
        "untrained": 1.0,
        "drop": 0.4 / 0.05,
        "holds": True,
        "unreported": "",
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"over": 8.0}, {"over": 8.0, "holds": True}),
        ({"over": 7.99}, {"over": 7.99, "holds": False}),
        ({"rank": 2}, {"rank": 2, "holds": False}),
        ({"drop": 0.151, "drop_low": 0.1}, {"drop": pytest.approx(3.02), "holds": True}),
        ({"drop": 0.149, "drop_low": 0.1}, {"drop": pytest.approx(2.98), "holds": False}),
        ({"drop_low": 0.0}, {"drop": 8, "holds": False}),
        ({"drop_low": -0.01}, {"drop": 8, "holds": False}),
        # A control that drops nothing counts as 0.01.
        ({"drop": 0.4, "shifted": 0.0}, {"holds": True}),
        ({"drop": 0.031, "drop_low": 0.01, "shifted": 0.0}, {"drop": pytest.approx(3.1), "holds": True}),
        ({"drop": 0.029, "drop_low": 0.01, "shifted": 0.0}, {"drop": pytest.approx(2.9), "holds": False}),
        ({"drop": 0.029, "drop_low": 0.01, "shifted": 0.0099}, {"drop": pytest.approx(2.9), "holds": False}),
        (
            {"drop": 0.0004, "drop_low": 0.0001, "shifted": -0.001},
            {"drop": pytest.approx(0.04), "holds": False},
        ),
        ({"drop": -0.4, "drop_low": -0.5, "shifted": -0.1}, {"drop": pytest.approx(-40), "holds": False}),
    ],
)
def test_the_worst_of_the_taps_is_judged(fields, said):
    found = check(*activations(**fields))
    assert {name: found[name] for name in said} == said


def test_an_untrained_model_that_finds_the_region_is_the_end_of_it():
    rows = activations()
    rows[4]["over"]["5"] = 3.0
    assert (check(*rows)["untrained"], check(*rows)["holds"]) == (3.0, True)
    rows[4]["over"]["5"] = 3.01
    assert (check(*rows)["untrained"], check(*rows)["holds"]) == (3.01, False)


@pytest.mark.parametrize(
    "other",
    [
        row("prelu", kind="stem", cells=56, over=1.0),
        row("layer2.0.conv1", kind="convolution", cells=28, over=1.0),
        row("fused activations", kind="fused", cells=112, over=1.0),
        row("layer4.0.prelu", cells=7, over=1.0),
        row("layer2.0.prelu", method=PAPER.name, over=1.0),
        row("layer2.0.prelu", "eyes", over=30.0),
        {"model": "lips", "method": "", "map": "", "unreported": "it cannot be asked"},
    ],
)
def test_other_scores_are_not_judged(other):
    assert check(*activations(), other) == check(*activations())
    assert check(other)["holds"] is False


def test_grids_that_are_too_coarse_are_left_out_and_that_is_said():
    small = {
        "model": "own",
        "method": FAITHFUL.name,
        "map": "layer3.0.prelu",
        "kind": "activation",
        "cells": 14,
    }
    rows = [score for score in activations() if score["map"] != "layer3.0.prelu"]
    found = check(*rows, small | {"unreported": "eyes is too small here: 8 pixels in a cell of 64"})
    assert (found["cells"], found["holds"]) == ([56, 28], True)


def test_nothing_holds_without_scores():
    assert check() == {"model": "nose-plain-0", "holds": False, "unreported": "no scores"}
    assert check(*activations()[:3])["unreported"] == "no scores"  # of an untrained model
    (found,) = checks({"models": [planted(unreported="it did not learn")]})
    assert found == {"model": "nose-plain-0", "holds": False, "unreported": "it did not learn"}


@pytest.fixture
def made() -> dict:
    """Tables of two plain models, a free one, and one that did not learn."""

    def scores(over: float) -> list[dict]:
        fused = {"kind": "fused", "cells": 112}
        return [
            *activations(over=over, rank=int(over < 10) + 1),
            row("layer2.0.prelu", method=PAPER.name, over=over / 2),
            row("fused activations", over=over, **fused),
            row("fused activations", "untrained", over=0.5, **fused),
            row("fused activations", "eyes", over=1.5, **fused),
            row("fused activations", "lips", over=over / 4, **fused),
            row("fused activations", "all", over=4.0, **fused),
            row("", method="edges", kind="input", cells=112, over=2.5),
            row("", method="own_methods:mine", kind="input", cells=112, over=over, pointing=0.25),
            {"model": "brows", "method": "", "map": "", "unreported": "it cannot be asked"},
        ]

    models = [
        planted(*scores(12.0)),
        planted(*scores(9.0), seed=1),
        planted(*scores(30.0), kind="free"),
        planted(region="brows", unreported="it did not learn"),
    ]
    results = {"models": models}
    found = tables(results | {"checks": checks(results)})
    for table in found:
        assert all(len(line) == len(table.columns) for line in table.rows)
    return {table.name: table for table in found}


def cells(table, name: str) -> dict:
    """Column -> cell of the line that begins with a name."""
    (line,) = (line for line in table.rows if line[0] == name)
    return dict(zip(table.columns, line, strict=True))


def test_there_are_six_tables(made):
    assert list(made) == ["models", "variants", "taps", "methods", "controls", "checks"]


def test_models_have_the_numbers_of_their_files_and_their_own(made):
    found = cells(made["models"], "nose-plain-1")
    assert (found["AUC"], found["accepted"], found["AUC scored"]) == ("0.9877", "0.8765", "0.9900")
    assert [line[0] for line in made["models"].rows] == [
        "nose-plain-0",
        "nose-plain-1",
        "nose-free-0",
        "brows-plain-0",
    ]
    assert cells(made["models"], "brows-plain-0")[""] == "it did not learn"


def test_variants_and_taps_are_means_over_plain_models(made):
    found = cells(made["variants"], FAITHFUL.name.removeprefix("LEAM "))
    assert (found["activation"], found["fused"]) == (f"{(12 + 9 + 4 * 10) / 6:.2f}", "10.50")
    assert (found["stem"], found["7 cells"]) == ("", "")
    found = cells(made["taps"], "layer2.0.prelu")
    assert found["cells"] == 28
    assert found["nose faithful"] == "10.5 (9.0-12.0), place 1-2"
    assert found["nose paper"] == "5.2 (4.5-6.0)"


def test_methods_stand_beside_their_controls(made):
    found = cells(made["methods"], "LEAM faithful fused activations")
    assert (found["models"], found["over 5%"], found["untrained"]) == (2, "10.5 (9.0-12.0)", "0.5 (0.5-0.5)")
    assert (found["drop 1%"], found["shifted"], found["on the face"]) == ("0.400", "0.050", "0.100")
    assert found["recall 5%"] == "0.40"
    assert cells(made["methods"], "LEAM faithful layer2.0.prelu")["first"] == "0.50"
    mine = cells(made["methods"], "own_methods:mine")
    assert (mine["pointing"], mine["untrained"]) == ("0.25", "")
    assert "LEAM faithful layer1.0.prelu" not in [line[0] for line in made["methods"].rows]


def test_controls_of_each_model(made):
    assert [line[0] for line in made["controls"].rows] == ["nose-plain-0", "nose-plain-1", "nose-free-0"]
    found = cells(made["controls"], "nose-plain-0")
    assert (found["own [95%]"], found["untrained"]) == ("12.0 [11.0, 13.0]", "0.5")
    assert (found["other regions' models"], found["model of all regions"]) == ("1.5-3.0", "4.0")
    assert (found["edges"], found["random"]) == ("2.5", "")


def test_checks_of_each_model(made):
    lines = [line[1:] for line in made["checks"].rows]
    assert lines == [
        ("56, 28, 14", "10.00", "1", "1.00", "8.00", "yes"),
        ("56, 28, 14", "9.00", "2", "1.00", "8.00", "no"),
        ("56, 28, 14", "10.00", "1", "1.00", "8.00", "yes"),
        ("", "", "", "", "", "it did not learn"),
    ]
