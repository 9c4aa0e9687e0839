"""Seconds from the command to the first piece on a Ray of our own, beside a bare program on Ray."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from leamfast_bench.engine.spells import WrongWorkError

__all__ = ["STAGES", "bare_start", "measure_starting", "stages"]

STAGES = (
    "Python and our imports, torch among them",
    "Ray",
    "the first actor, with torch",
    "models, backend",
    "work to all actors, loading there",
    "the first piece",
)

BARE = """
import os, sys, time
began = time.time()
import torch
imported = time.time()
import ray
options = dict(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.init("local", num_cpus=int(sys.argv[1]), **options)
connected = time.time()

@ray.remote(num_cpus=1)
class Actor:
    def look(self):
        import torch
        return torch.cuda.is_available(), time.time()

actors = [Actor.remote() for _ in range(2)]
first = min(when for _, when in ray.get([actor.look.remote() for actor in actors]))
print("TIMES", imported, connected, first)
ray.shutdown()
"""
"""What any program does that computes with torch in two actors of a Ray of its own, and nothing else."""


def measure_starting(
    ours: Sequence[Mapping[str, Any]], rounds: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """Medians of ours and of the bare program's, by stage.

    Args:
        ours: what runs on Ray with two workers told: see `watched`.
        rounds: of the bare program.
        note: told of progress.

    Returns:
        `seconds` to the end of the first piece and `by_stage`; `bare_seconds` until an actor has torch and
        `bare_by_stage`; `ours_seconds`: what we add to these until the first piece begins.
    """
    measured = [stages(run) for run in ours]
    bare = [bare_start() for _ in range(rounds)]
    by_stage = [median(column) for column in zip(*measured, strict=True)]
    bare_by_stage = [median(column) for column in zip(*bare, strict=True)]
    begins = median(sum(run[:-1]) for run in measured)
    without = median(sum(run) for run in bare)
    seconds = median(sum(run) for run in measured)
    note(f"  the first piece after {seconds:.1f} s; {without:.1f} s of a bare program on Ray")
    return {
        "seconds": seconds,
        "by_stage": dict(zip(STAGES, by_stage, strict=True)),
        "bare_seconds": without,
        "bare_by_stage": dict(zip(STAGES, bare_by_stage, strict=False)),
        "ours_seconds": begins - without,
    }


def stages(run: Mapping[str, Any]) -> list[float]:
    """Seconds of each of `STAGES` of a run on Ray.

    Raises:
        WrongWorkError: they did not follow each other.
    """
    times, first = run["times"], min(run["events"], key=lambda event: event[3])
    order = [run["began"], *(times[name] for name in ("imported", "connected", "actor", "resolved"))]
    order += [first[3], min(event[4] for event in run["events"])]
    if order != sorted(order):
        raise WrongWorkError(f"a run on Ray did things in another order than was thought: {order}")
    return [after - before for before, after in zip(order, order[1:], strict=False)]


def bare_start() -> list[float]:
    """Seconds to import torch, to start Ray, and to the first actor with torch."""
    settings = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    settings |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    processors = str(max(2, os.cpu_count() or 1))
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", BARE, processors],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("TIMES")]
    if done.returncode or not told:
        raise RuntimeError(f"a bare program on Ray failed: {done.stderr[-2000:]}")
    order = [began, *map(float, told[0])]
    return [after - before for before, after in zip(order, order[1:], strict=False)]
