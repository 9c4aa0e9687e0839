"""The results of `leamfast bench occlusion` as tables for people."""

from collections.abc import Mapping
from typing import Any

from leamfast_bench.occlusion.stages import STAGES
from leamfast_bench.registry import Table

__all__ = ["tables"]

Found = Mapping[str, Any]
MIB = 2**20


def tables(results: Found) -> list[Table]:
    """What was asked and found, speed, where the time goes, memory, and what is missing."""
    return [_bars(results), _speed(results), _stages(results), _memory(results), _left_out(results)]


def _bars(results: Found) -> Table:
    body = tuple(
        (
            bar["what"],
            f"{bar['found']:.3g}",
            f"at {bar['which']} {bar['asked']:.3g}",
            "yes" if bar["met"] else "no",
        )
        for bar in results["bars"]
    )
    columns = ("", "found", "asked", "met")
    return Table("occlusion_bars", f"What was asked and found, {_where(results)}", columns, body)


def _speed(results: Found) -> Table:
    body = []
    for row in results["rows"]:
        low, high = (f"{seconds:.3g}" for seconds in row["quartiles"])
        times = (f"{row['median_seconds']:.3g}", f"{low}-{high}", f"{row['embedded_a_second']:.0f}")
        name = f"{row['row']}, {row['images']} images timed"
        body.append((name, row["embedded"], *times, f"{row['times_ours']:.1f}"))
    form = results["form"]
    models = " and ".join(f"{name} ({backend})" for name, backend in results["backends"].items())
    title = (
        f"{len(form['percents'])} percents, {len(form['controls']) - 1} controls, {form['seeds']} seeds, "
        f"{results['maps']} maps a model, {models}, {_where(results)}; values differ by at most "
        f"{results['error']:.0e}, and preparing our models took {results['prepared_seconds']:.0f} s besides"
    )
    columns = ("", "embedded an image", "s an image", "quartiles", "embedded a second", "times ours")
    return Table("occlusion_speed", title, columns, tuple(body))


def _stages(results: Found) -> Table:
    shares = results["stages"] or {}
    body = [(stage, f"{100 * shares[stage]:.1f}%") for stage in STAGES if stage in shares]
    if results["utilisation"] is not None:
        body.append(("the device computes", f"{100 * results['utilisation']:.1f}%"))
    return Table("occlusion_stages", "Where our time goes", ("", "of the time"), tuple(body))


def _memory(results: Found) -> Table:
    body = tuple(
        (case["images"], "not told" if case["held_bytes"] is None else f"{case['held_bytes'] / MIB:.0f}")
        for case in results["memory"]
    )
    title = f"MiB that a pass holds beyond its program, with {results['form']['remembered_model']} alone"
    return Table("occlusion_memory", title, ("images of the run", "MiB"), body)


def _left_out(results: Found) -> Table:
    body = tuple(results["left_out"].items())
    return Table("occlusion_left_out", "Not measured, and why", ("", "reason"), body)


def _where(results: Found) -> str:
    threads: int = results["threads"]
    return f"{results['device']}, {threads} thread{'s' * (threads > 1)}"
