"""The results of `leamfast bench faces` as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from leamfast_bench.faces.shares import NOT_COUNTED
from leamfast_bench.registry import Table

__all__ = ["tables"]

Found = Mapping[str, Any]


def tables(results: Found) -> list[Table]:
    """Processes, detection, the cached run, region shares, and what was not measured."""
    return [
        _processes(results),
        _detection(results),
        _cached(results),
        _shares(results),
        _left_out(results),
    ]


def _processes(results: Found) -> Table:
    body = []
    for case in results["processes"]:
        for row in case["rows"]:
            ratio = row["photos_per_second"] / case["rows"][0]["photos_per_second"]
            name = f"{case['detector']}, {row['processes']} process{'es' * (row['processes'] > 1)}"
            body.append((name, *_rate(row), f"{ratio:.2f}", f"{row['start_seconds']:.1f}"))
    photos = max((case["photos"] for case in results["processes"]), default=0)
    title = f"Decoding, detection, alignment and writing of {photos} photos on {_where(results)} a process"
    columns = ("", "photos/s", "quartiles", "over one process", "s to start")
    return Table("faces_processes", title, columns, tuple(body))


def _detection(results: Found) -> Table:
    found = results.get("detection", {"rows": [], "pictures": 0})
    rows = found["rows"]
    body = [
        (row["row"], *_rate(row), f"{rows[0]['photos_per_second'] / row['photos_per_second']:.2f}")
        for row in rows
    ]
    title = f"RetinaFace on {found['pictures']} decoded photos, {_where(results)}"
    if rows:
        title += f"; boxes and points differ by at most {found['error']:.1g} pixels"
    return Table("faces_detection", title, ("", "photos/s", "quartiles", "ours over this"), tuple(body))


def _cached(results: Found) -> Table:
    body = [
        (
            run["cache"],
            f"{run['seconds']:.1f}",
            f"{run['to_first_shard']:.2f}",
            f"{run['to_first_map'] - run['to_first_shard']:.2f}",
            f"{100 * run['share_before_first_map']:.1f}%",
            run["searched"],
        )
        for run in results["cached"]
    ]
    images = results["cached"][0]["images"] if results["cached"] else 0
    model = results["model"].partition("=")[0]
    title = f"`leamfast batch` on {images} photos, {model}, {_where(results)}, by what its caches hold"
    columns = ("caches", "s in all", "s loading", "s to crops", "before the first map", "photos searched")
    return Table("faces_cached", title, columns, tuple(body))


def _shares(results: Found) -> Table:
    body = [
        (
            "with region masks" if row["masks"] else "without",
            "not measured" if row["round_trips"] is None else row["round_trips"],
            f"{100 * row['share_of_shares']:.1f}%",
        )
        for row in results["shares"]
    ]
    images = results["shares"][0]["images"] if results["shares"] else 0
    title = f"Maps and region shares of {images} crops on {_where(results)}"
    columns = ("", "times the host waited", "time in region shares")
    return Table("faces_shares", title, columns, tuple(body))


def _left_out(results: Found) -> Table:
    body: list[tuple[object, ...]] = list(results["left_out"].items())
    body += [
        (f"{case['detector']}, processes", "outputs differ" if case["crops"] else "no photo has a crop")
        for case in results["processes"]
        if not case["rows"]
    ]
    found = results.get("detection")
    if found and not found["rows"]:
        body.append(("detection", f"our boxes and facer's differ by more than {found['limit']:g} pixels"))
    if any(row["round_trips"] is None for row in results["shares"]):
        body.append(("times the host waited", NOT_COUNTED))
    return Table("faces_left_out", "Not measured, and why", ("", "reason"), tuple(body))


def _where(results: Found) -> str:
    threads: int = results["threads"]
    return f"{results['device']}, {threads} thread{'s' * (threads > 1)}"


def _rate(row: Found) -> Sequence[str]:
    low, high = row["quartiles"]
    return f"{row['photos_per_second']:.1f}", f"{low:.1f}-{high:.1f}"
