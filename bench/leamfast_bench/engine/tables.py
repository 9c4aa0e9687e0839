"""The results of `leamfast bench engine` as tables for people."""

from collections.abc import Mapping
from typing import Any

from leamfast_bench.registry import Table

__all__ = ["tables"]

Found = Mapping[str, Any]
Line = tuple[object, ...]
MIB = 2**20


def tables(results: Found) -> list[Table]:
    """What was asked and found, then each measurement, and what is missing."""
    return [
        _bars(results),
        _scaling(results),
        _overhead(results),
        _starting(results),
        _gpus(results),
        _memory(results),
        _storing(results),
        _reading(results),
        _left_out(results),
    ]


def _bars(results: Found) -> Table:
    body = []
    for bar in results["bars"]:
        asked = f"at {bar['which']} {bar['asked']:.3g}"
        body.append((bar["what"], f"{bar['found']:.3g}", asked, "yes" if bar["met"] else "no"))
    title = f"What was asked and found, {_where(results)}"
    return Table("engine_bars", title, ("", "found", "asked", "met"), tuple(body))


def _scaling(results: Found) -> Table:
    found = results["scaling"] or {"rows": [], "images": 0, "shards": 0}
    body = [
        (
            f"{row['place']}, {row['workers']}",
            f"{row['images_per_second']:.1f}",
            "{:.1f}-{:.1f}".format(*row["quartiles"]),
            f"{row['over_one']:.2f}",
            f"{row['wall_seconds']:.1f}",
        )
        for row in found["rows"]
    ]
    title = (
        f"`leamfast batch` on {found['images']} faces in {found['shards']} shards, {_where(results)} a worker"
    )
    columns = ("", "images/s", "quartiles", "over one", "s in all")
    return Table("engine_scaling", title, columns, tuple(body))


def _overhead(results: Found) -> Table:
    body = [
        (
            row["place"],
            f"{100 * row['shards']:.2f}%",
            f"{1e3 * row['shard_gap_seconds']:.0f}",
            f"{1e3 * row['gap_seconds']:.2f}",
            f"{row['scaling']:.2f}",
        )
        for row in results["overhead"]
    ]
    first = results["overhead"][0]
    title = (
        f"What two workers do beside shards of {first['shard_seconds']:g} s with parts of {first['images']} "
        f"images, and one beside pieces of {first['short_seconds']:g} s, {_where(results)}"
    )
    columns = ("", "of a shard", "ms after a shard", "ms after a short piece", "short pieces, two over one")
    return Table("engine_overhead", title, columns, tuple(body))


def _starting(results: Found) -> Table:
    found, body = results["starting"], []
    if found:
        for stage, seconds in found["by_stage"].items():
            bare = found["bare_by_stage"].get(stage)
            body.append((stage, f"{seconds:.2f}", "" if bare is None else f"{bare:.2f}"))
        body.append(("all", f"{found['seconds']:.2f}", f"{found['bare_seconds']:.2f}"))
    title = f"Seconds from the command to the first piece, Ray of our own, {_where(results)}"
    return Table("engine_starting", title, ("", "leamfast batch", "bare program on Ray"), tuple(body))


def _gpus(results: Found) -> Table:
    found, body = results["gpus"], []
    if found:
        gap, longest = 1e3 * found["gap_seconds"], 1e3 * found["longest_gap_seconds"]
        body.append((found["gpus"], f"{100 * found['busy']:.1f}%", f"{gap:.0f}", f"{longest:.0f}"))
        title = (
            f"GPUs that sleep {found['seconds']:g} s over each of {found['pieces']} pieces of "
            f"{found['photos']} photos, with parts of {found['part_bytes'] / MIB:.0f} MiB, {_where(results)}"
        )
    else:
        title = "GPUs that are none"
    columns = ("GPUs", "busy", "ms between pieces", "ms at most")
    return Table("engine_gpus", title, columns, tuple(body))


def _memory(results: Found) -> Table:
    body = []
    for row in results["memory"]:
        peaks = (_mebibytes(row[name]) for name in ("before_bytes", "driver_bytes", "worker_bytes"))
        body.append((row["images"], row["shards"], *peaks, f"{row['seconds']:.1f}"))
    title = f"Peak resident memory, MiB, of runs that compute next to nothing, {_where(results)}"
    columns = ("images", "shards", "driver before the run", "driver", "worker", "s")
    return Table("engine_memory", title, columns, tuple(body))


def _storing(results: Found) -> Table:
    found = results["storing"]
    body = [
        (
            f"{row['row']}, {row['writers']} writer{'s' * (row['writers'] > 1)}",
            f"{row['mb_per_second']:.0f}",
            "{:.0f}-{:.0f}".format(*row["quartiles"]),
        )
        for row in found["rows"]
    ]
    title = f"Files of {found['part_bytes'] / 1e6:.0f} MB made durable, MB/s, {_where(results)}"
    return Table("engine_storing", title, ("", "MB/s", "quartiles"), tuple(body))


def _reading(results: Found) -> Table:
    found = results["reading"]
    body = [
        (row["row"], f"{1e3 * row['seconds']:.2f}", "{:.2f}-{:.2f}".format(*_milliseconds(row["quartiles"])))
        for row in found["rows"]
    ]
    title = (
        f"One map of {found['side']}x{found['side']} of {found['images']} images in {found['parts']} parts, "
        f"{_where(results)}"
    )
    return Table("engine_reading", title, ("", "ms", "quartiles"), tuple(body))


def _left_out(results: Found) -> Table:
    return Table(
        "engine_left_out", "Not measured, and why", ("", "reason"), tuple(results["left_out"].items())
    )


def _milliseconds(seconds: list[float]) -> list[float]:
    return [1e3 * value for value in seconds]


def _mebibytes(peak: int | None) -> str:
    return "not told" if peak is None else f"{peak / MIB:.0f}"


def _where(results: Found) -> str:
    return f"{results['device']}, 1 thread"
