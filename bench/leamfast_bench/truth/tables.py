"""The results of `leamfast bench truth` as tables for people."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from leamfast_bench.registry import Table

__all__ = ["BARS", "checks", "tables"]

Row = Mapping[str, Any]

PAPER = "LEAM loss signed resize mean"
FAITHFUL = "LEAM similarity positive receptive mean"
BARS = {"over": 8.0, "rank": 1, "untrained": 3.0, "drop": 3.0}
"""A planted region is found where it is at least so over-represented at 5% and first among facial parts, an
untrained model at most so, and the top 1% drops the cosine by so many times the shifted control."""
CELLS = range(14, 57)
KINDS = ("stem", "convolution", "activation", "block", "fused")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Models, variants, taps, methods, and whether the bars hold."""
    rows = list(_rows(results))
    made = (_variants(rows), _taps(rows), _methods(rows), _controls(rows))
    return [_models(results), *made, _checks(results["checks"])]


def checks(results: Mapping[str, Any], method: str = FAITHFUL) -> list[dict[str, Any]]:
    """For each planted model, the worst of its registered activations inside blocks from 56 to 14 cells.

    Args:
        results: of the benchmark.
        method: whose maps.

    Returns:
        Model, least over-representation at 5%, worst rank, most of the untrained model, least ratio of the
        drop to the shifted control, and whether all bars hold.
    """
    found = []
    for model in results["models"]:
        name = f"{model['region']}-{model['kind']}-{model['seed']}"
        rows = [
            row
            for row in model["scores"]
            if row["method"] == method and row["kind"] == "activation" and row["cells"] in CELLS
            if row["map"] != "prelu"  # the stem's
        ]
        own = [row for row in rows if row["model"] == "own" and "over" in row]
        untrained = [row for row in rows if row["model"] == "untrained" and "over" in row]
        if not own or not untrained:
            found.append({"model": name, "holds": False, "unreported": model["unreported"] or "no scores"})
            continue
        values = {
            "over": min(row["over"]["5"] for row in own),
            "rank": max(row["rank"] for row in own),
            "untrained": max(row["over"]["5"] for row in untrained),
            "drop": min(row["drop"] / max(row["shifted"], 1e-9) for row in own),
        }
        holds = (
            values["over"] >= BARS["over"]
            and values["rank"] <= BARS["rank"]
            and values["untrained"] <= BARS["untrained"]
            and values["drop"] >= BARS["drop"]
        )
        found.append({"model": name, **values, "holds": holds, "unreported": ""})
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
                f"{model.get('auc', float('nan')):.4f}",
                f"{model.get('true_accept_rate', float('nan')):.3f}",
                model["unreported"] or f"{len(model['scores'])} scores",
            )
        )
    title = "Planted models on unseen people (true-accept rate at 1% false accepts)"
    return Table("models", title, ("model", "AUC", "accepted", ""), tuple(rows))


def _variants(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["model"] == "own" and row["method"].startswith("LEAM ")]
    own = [row for row in own if row["trained"] == "plain"]  # they have all variants
    wanted = [row for row in own if row["kind"] == "fused" or row["cells"] in CELLS]
    columns: dict[str, Callable[[Row], bool]] = {
        kind: lambda row, kind=kind: row["kind"] == kind for kind in KINDS
    }
    columns["7 cells"] = lambda row: row["cells"] == 7
    body = []
    for method in dict.fromkeys(row["method"] for row in own):
        cells = [method.removeprefix("LEAM ")]
        for name, fits in columns.items():
            pool = own if name == "7 cells" else wanted
            cells.append(_mean(row["over"]["5"] for row in pool if row["method"] == method and fits(row)))
        body.append(tuple(cells))
    title = "LEAM: over-representation at 5%, mean over plain models, by kind of tap (56 to 14 cells; and 7)"
    return Table("variants", title, ("target activation registration references", *columns), tuple(body))


def _taps(rows: Sequence[Row]) -> Table:
    own = [row for row in rows if row["model"] == "own" and row["method"] in (PAPER, FAITHFUL)]
    regions = list(dict.fromkeys(row["region"] for row in own))
    body = []
    for tap in dict.fromkeys(row["map"] for row in own):
        cells: list[object] = [tap, next(row["cells"] for row in own if row["map"] == tap)]
        for region in regions:
            for method in (PAPER, FAITHFUL):
                found = [r for r in own if (r["map"], r["region"], r["method"]) == (tap, region, method)]
                ranks = sorted({row["rank"] for row in found})
                places = f" ({'-'.join(map(str, (ranks[0], ranks[-1])))})" if ranks and ranks[-1] > 1 else ""
                cells.append(_mean(row["over"]["5"] for row in found) + places)
        body.append(tuple(cells))
    columns = [f"{region} {preset}" for region in regions for preset in ("paper", "faithful")]
    title = "Taps: over-representation at 5% (and the region's places, where it is not always first)"
    return Table("taps", title, ("map", "cells", *columns), tuple(body))


def _methods(rows: Sequence[Row]) -> Table:
    """Every method at each of its maps but LEAM, of which the fused maps stand for all."""
    own = [row for row in rows if row["model"] == "own"]
    body = []
    for method, name in dict.fromkeys((row["method"], row["map"]) for row in own):
        if method.startswith("LEAM ") and (method not in (PAPER, FAITHFUL) or not name.startswith("fused")):
            continue
        found = [row for row in own if (row["method"], row["map"]) == (method, name)]
        body.append(
            (
                f"{method} {name}".strip(),
                _mean(row["over"]["5"] for row in found),
                f"{min(row['over']['5'] for row in found):.2f}",
                f"{mean(row['rank'] == 1 for row in found):.2f}",
                _mean(row["pointing"] for row in found),
                _mean((row["area"] for row in found), 3),
                _mean((row["drop"] for row in found if "drop" in row), 3),
                _mean((row["shifted"] for row in found if "shifted" in row), 3),
            )
        )
    columns = ("method", "over 5%", "least", "first", "pointing", "area", "drop 1%", "shifted")
    title = "Methods, mean over planted models (first: share of models where the region ranks first)"
    return Table("methods", title, columns, tuple(body))


def _controls(rows: Sequence[Row]) -> Table:
    """The same pictures before other models, and before none."""
    body = []
    for name in dict.fromkeys(row["planted"] for row in rows):
        mine = [row for row in rows if row["planted"] == name]
        leam = [row for row in mine if (row["method"], row["map"]) == (FAITHFUL, "fused activations")]
        (own,) = [row for row in leam if row["model"] == "own"]
        others = [row for row in leam if row["model"] not in ("own", "untrained", "all")]
        cells = [f"{own['over']['5']:.1f} [{own['over_low']:.1f}, {own['over_high']:.1f}]"]
        for pool in (
            [row for row in leam if row["model"] == "untrained"],
            others,
            [row for row in leam if row["model"] == "all"],
            [row for row in mine if row["method"] == "centre prior"],
            [row for row in mine if row["method"] == "random"],
        ):
            cells.append("-".join(_ends(row["over"]["5"] for row in pool)))
        body.append((name, *cells))
    title = (
        "Controls: over-representation at 5% of fused activations, similarity positive receptive, "
        "on the same pictures (other regions: least and most)"
    )
    columns = (
        "planted", "own [95%]", "untrained", "other regions' models", "model of all regions", "centre prior",
        "random",
    )  # fmt: skip
    return Table("controls", title, columns, tuple(body))


def _checks(found: Sequence[Mapping[str, Any]]) -> Table:
    body = []
    for check in found:
        if check["unreported"]:
            body.append((check["model"], "", "", "", "", check["unreported"]))
            continue
        numbers = (f"{check[name]:.2f}" for name in ("over", "untrained", "drop"))
        over, untrained, drop = numbers
        body.append((check["model"], over, check["rank"], untrained, drop, "yes" if check["holds"] else "no"))
    title = (
        "Activations inside blocks, 56 to 14 cells, similarity positive receptive, the worst of them: "
        f"over 5% >= {BARS['over']:g}, rank 1, untrained <= {BARS['untrained']:g}, "
        f"drop >= {BARS['drop']:g} x shifted"
    )
    return Table(
        "checks", title, ("model", "over 5%", "rank", "untrained", "drop/shifted", "holds"), tuple(body)
    )


def _ends(values: Any) -> list[str]:
    """The least and the largest, or the only one."""
    numbers = [f"{value:.1f}" for value in sorted(values)]
    return list(dict.fromkeys((*numbers[:1], *numbers[-1:])))


def _mean(values: Any, digits: int = 2) -> str:
    numbers = list(values)
    return f"{mean(numbers):.{digits}f}" if numbers else ""
