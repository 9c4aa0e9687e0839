"""The results of `leamfast bench truth` as tables for people."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from leamfast_bench.registry import Table
from leamfast_bench.truth import methods
from leamfast_bench.truth.peers import CAM_TAPS
from leamfast_bench.truth.scores import CURVE

__all__ = ["BARS", "checks", "tables"]

Row = Mapping[str, Any]

PAPER, FAITHFUL = methods.PAPER.name, methods.FAITHFUL.name
NAMES = {PAPER: "LEAM paper", FAITHFUL: "LEAM faithful"}
BARS = {"over": 8.0, "rank": 1, "untrained": 3.0, "drop": 3.0}
"""A planted region is found where it is at least so over-represented at 5% and first among facial parts, an
untrained model at most so, and the top 1% drops the cosine by so many times the shifted control."""
NOISE = 0.01  # of a cosine: a smaller drop of a control is none
CELLS = range(14, 57)
KINDS = ("stem", "convolution", "activation", "block", "fused")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Models, variants, taps, methods, and whether the bars hold."""
    rows = list(_rows(results))
    made = (_variants(rows), _taps(rows), _methods(rows), _controls(rows))
    return [_models(results), *made, _checks(results["checks"])]


def checks(results: Mapping[str, Any], method: str = FAITHFUL) -> list[dict[str, Any]]:
    """For each planted model, the worst of its activations inside blocks from 56 to 14 cells.

    Args:
        results: of the benchmark.
        method: whose maps.

    Returns:
        Model, sides of the grids that were scored, least over-representation at 5%, worst rank, most of the
        untrained model, least ratio of the drop to the shifted control (one below `NOISE` counts as that),
        and whether all bars hold and every drop's interval lies above zero.
    """
    found = []
    for model in results["models"]:
        name = f"{model['region']}-{model['kind']}-{model['seed']}"
        rows = [
            row
            for row in model["scores"]
            if "over" in row
            and row["method"] == method
            and row["kind"] == "activation"
            and row["cells"] in CELLS
        ]
        own = [row for row in rows if row["model"] == "own"]
        untrained = [row for row in rows if row["model"] == "untrained"]
        if not own or not untrained:
            refused = [
                row["unreported"]
                for row in model["scores"]
                if row["model"] == "untrained" and not row["method"]
            ]
            why = model["unreported"] or next(iter(refused), "no scores")
            found.append({"model": name, "holds": False, "unreported": why})
            continue
        values = {
            "over": min(row["over"]["5"] for row in own),
            "rank": max(row["rank"] for row in own),
            "untrained": max(row["over"]["5"] for row in untrained),
            "drop": min(row["drop"] / max(row["shifted"], NOISE) for row in own),
        }
        holds = (
            values["over"] >= BARS["over"]
            and values["rank"] <= BARS["rank"]
            and values["untrained"] <= BARS["untrained"]
            and values["drop"] >= BARS["drop"]
            and all(row["drop_low"] > 0 for row in own)
        )
        grids = [row["cells"] for row in own]
        found.append({"model": name, "cells": grids, **values, "holds": holds, "unreported": ""})
    return found


def _rows(results: Mapping[str, Any]) -> Sequence[Row]:
    """All scores, each with its planted region and model."""
    return [
        {
            **score,
            "region": model["region"],
            "trained": model["kind"],
            "planted": f"{model['region']}-{model['kind']}-{model['seed']}",
        }
        for model in results["models"]
        for score in model["scores"]
        if "over" in score
    ]


def _models(results: Mapping[str, Any]) -> Table:
    rows = []
    for model in results["models"]:
        rows.append(
            (
                f"{model['region']}-{model['kind']}-{model['seed']}",
                *(f"{float(model['header'].get(key, 'nan')):.4f}" for key in ("auc", "true_accept_rate")),
                f"{model.get('auc', float('nan')):.4f}",
                model["unreported"] or f"{len(model['scores'])} scores",
            )
        )
    title = (
        "Planted models: AUC and true-accept rate at 1% false accepts on 200 unseen people, "
        "and AUC on the people of the scores"
    )
    return Table("models", title, ("model", "AUC", "accepted", "AUC scored", ""), tuple(rows))


def _variants(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["model"] == "own" and row["method"].startswith("LEAM ")]
    own = [row for row in own if row["trained"] == "plain"]  # they have all variants
    wanted = [row for row in own if row["kind"] == "fused" or row["cells"] in CELLS]
    kinds: dict[str, Callable[[Row], bool]] = {
        kind: lambda row, kind=kind: row["kind"] == kind for kind in KINDS
    }
    kinds["7 cells"] = lambda row: row["cells"] == 7
    body = []
    asked = {row["method"] for row in own}
    for method in (variant.name for variant in methods.ALL_VARIANTS if variant.name in asked):
        cells = [method.removeprefix("LEAM ")]
        for name, fits in kinds.items():
            pool = own if name == "7 cells" else wanted
            cells.append(_mean(row["over"]["5"] for row in pool if row["method"] == method and fits(row)))
        fused = [row for row in own if (row["method"], row["map"]) == (method, "fused activations")]
        cells += [_mean((row[key] for row in fused), 3) for key in ("area", "drop")]
        body.append(tuple(cells))
    title = (
        "LEAM: over-representation at 5%, mean over plain models, by kind of tap (56 to 14 cells; and 7); "
        "area and drop of fused activations"
    )
    columns = ("target activation registration references", *kinds, "area", "drop 1%")
    return Table("variants", title, columns, tuple(body))


def _taps(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["model"] == "own" and row["method"] in (PAPER, FAITHFUL)]
    own = [row for row in own if row["trained"] == "plain"]
    regions = list(dict.fromkeys(row["region"] for row in own))
    body = []
    for tap in dict.fromkeys(row["map"] for row in own):
        cells: list[object] = [tap, next(row["cells"] for row in own if row["map"] == tap)]
        for region in regions:
            for method in (PAPER, FAITHFUL):
                found = [r for r in own if (r["map"], r["region"], r["method"]) == (tap, region, method)]
                ranks = sorted({row["rank"] for row in found})
                places = f", place {'-'.join(map(str, ranks))}" if ranks and ranks[-1] > 1 else ""
                cells.append(_spread(row["over"]["5"] for row in found) + places)
        body.append(tuple(cells))
    columns = [f"{region} {preset}" for region in regions for preset in ("paper", "faithful")]
    title = (
        "Taps: over-representation at 5% of plain models, mean (least-most of the seeds), and the region's "
        "place where it is not always the first; no number where the region is too small for the grid"
    )
    return Table("taps", title, ("map", "cells", *columns), tuple(body))


def _methods(rows: Sequence[Row]) -> Table:
    """Every method at each of its maps; of LEAM the presets, fused and at the peers' taps."""
    plain = [row for row in rows if row["trained"] == "plain"]
    own = [row for row in plain if row["model"] == "own"]
    body = []
    for method, name in dict.fromkeys((row["method"], row["map"]) for row in own):
        shown = method in (PAPER, FAITHFUL) and (name in CAM_TAPS or name.startswith("fused"))
        if method.startswith("LEAM ") and not shown:
            continue
        found = [row for row in own if (row["method"], row["map"]) == (method, name)]
        untrained = [
            row for row in plain if (row["model"], row["method"], row["map"]) == ("untrained", method, name)
        ]
        five = CURVE.index(5.0)
        body.append(
            (
                f"{NAMES.get(method, method)} {name}".strip(),
                len(found),
                _spread(row["over"]["5"] for row in found),
                _spread(row["over"]["5"] for row in untrained),
                f"{mean(row['rank'] == 1 for row in found):.2f}",
                _mean(row["pointing"] for row in found),
                _mean(row["recall"][five] for row in found),
                _mean((row["area"] for row in found), 3),
                *(
                    _mean((row[key] for row in found if key in row), 3)
                    for key in ("drop", "shifted", "on_face")
                ),
            )
        )
    columns = (
        "method", "models", "over 5%", "untrained", "first", "pointing", "recall 5%", "area", "drop 1%",
        "shifted", "on the face",
    )  # fmt: skip
    title = (
        "Methods, mean over plain models (least-most); first: share of models where the region ranks first; "
        "drop beside the same support moved round the picture, and over the face"
    )
    return Table("methods", title, columns, tuple(body))


def _controls(rows: Sequence[Row]) -> Table:
    """The same pictures before other models, and before none."""
    body = []
    for name in dict.fromkeys(row["planted"] for row in rows):
        mine = [row for row in rows if row["planted"] == name]
        leam = [row for row in mine if (row["method"], row["map"]) == (FAITHFUL, "fused activations")]
        own = next(row for row in leam if row["model"] == "own")
        others = [row for row in leam if row["model"] not in ("own", "untrained", "all")]
        cells = [f"{own['over']['5']:.1f} [{own['over_low']:.1f}, {own['over_high']:.1f}]"]
        for pool in (
            [row for row in leam if row["model"] == "untrained"],
            others,
            [row for row in leam if row["model"] == "all"],
            *(
                [row for row in mine if row["method"] == prior]
                for prior in ("centre prior", "edges", "random")
            ),
        ):
            cells.append("-".join(_ends(row["over"]["5"] for row in pool)))
        body.append((name, *cells))
    title = (
        "Controls: over-representation at 5% of fused activations, similarity positive receptive, "
        "on the same pictures (other regions: least and most)"
    )
    columns = (
        "planted", "own [95%]", "untrained", "other regions' models", "model of all regions", "centre prior",
        "edges", "random",
    )  # fmt: skip
    return Table("controls", title, columns, tuple(body))


def _checks(found: Sequence[Mapping[str, Any]]) -> Table:
    body = []
    for check in found:
        if check["unreported"]:
            body.append((check["model"], "", "", "", "", "", check["unreported"]))
            continue
        over, untrained, drop = (f"{check[name]:.2f}" for name in ("over", "untrained", "drop"))
        grids = ", ".join(map(str, check["cells"]))
        holds = "yes" if check["holds"] else "no"
        body.append((check["model"], grids, over, str(check["rank"]), untrained, drop, holds))
    title = (
        "Activations inside blocks, 56 to 14 cells, similarity positive receptive, the worst of them: "
        f"over 5% >= {BARS['over']:g}, rank 1, untrained <= {BARS['untrained']:g}, "
        f"drop >= {BARS['drop']:g} x shifted"
    )
    columns = ("model", "cells", "over 5%", "rank", "untrained", "drop/shifted", "holds")
    return Table("checks", title, columns, tuple(body))


def _spread(values: Any) -> str:
    """Mean (least-most)."""
    numbers = sorted(values)
    if len(numbers) < 2:
        return _mean(numbers, 1)
    return f"{mean(numbers):.1f} ({numbers[0]:.1f}-{numbers[-1]:.1f})"


def _ends(values: Any) -> list[str]:
    """The least and the largest, or the only one."""
    numbers = [f"{value:.1f}" for value in sorted(values)]
    return list(dict.fromkeys((*numbers[:1], *numbers[-1:])))


def _mean(values: Any, digits: int = 2) -> str:
    numbers = list(values)
    return f"{mean(numbers):.{digits}f}" if numbers else ""
