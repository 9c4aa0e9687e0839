"""What region masks cost between maps and shares: round trips to the host, and time."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from leamfast.engine import batch
from leamfast.engine import shares as told
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast_bench.maps.timing import settle

__all__ = ["NOT_COUNTED", "measure_shares"]

NOT_COUNTED = "counted on CUDA only: --device cuda"
ROUND_TRIP = "called a synchronizing CUDA operation"


def measure_shares(request: BatchRequest) -> list[dict[str, Any]]:
    """A run without region masks and with them.

    Args:
        request: a run over crops that have masks; its folder is used and other folders beside it.

    Returns:
        For each: the calls that make maps, how often the host waited for the device in them (None where that
        cannot be counted), and the share of their time that went into region shares.
    """
    found = []
    for parser in ("none", "labels"):
        asked = replace(request, parser=parser)
        _run(replace(asked, out=_beside(request.out, f"{parser}-warm")))
        with _watched(request.device, timing=False) as counted:
            _run(replace(asked, out=_beside(request.out, f"{parser}-counted")))
        with _watched(request.device, timing=True) as timed:
            images = _run(replace(asked, out=_beside(request.out, f"{parser}-timed")))
        cuda = torch.device(request.device).type == "cuda"
        found.append(
            {
                "masks": parser == "labels",
                "images": images,
                "calls": counted["calls"],
                "round_trips": counted["round_trips"] if cuda else None,
                "share_of_shares": timed["shares"] / timed["maps"],
            }
        )
    return found


def _run(request: BatchRequest) -> int:
    return run_batch(request, note=lambda text: None).images


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.name}-{name}")


@contextmanager
def _watched(device: str, timing: bool) -> Iterator[dict[str, Any]]:
    """Count round trips, or take times, in the calls that make maps and shares; waiting would be counted."""
    seen: dict[str, Any] = {"calls": 0, "round_trips": 0, "maps": 0.0, "shares": 0.0}
    map_rows, region_share = batch.map_rows, told.region_share

    def watched_maps(*args: Any, **options: Any) -> Any:
        seen["calls"] += 1
        if timing:
            return _timed(seen, "maps", device, map_rows, *args, **options)
        with _round_trips(device) as found:
            result = map_rows(*args, **options)
        seen["round_trips"] += sum(ROUND_TRIP in str(warning.message) for warning in found)
        return result

    def watched_shares(*args: Any, **options: Any) -> Any:
        if timing:
            return _timed(seen, "shares", device, region_share, *args, **options)
        return region_share(*args, **options)

    batch.map_rows, told.region_share = watched_maps, watched_shares
    try:
        yield seen
    finally:
        batch.map_rows, told.region_share = map_rows, region_share


def _timed(seen: dict[str, Any], what: str, device: str, call: Any, *args: Any, **options: Any) -> Any:
    settle(device)
    began = time.perf_counter()
    result = call(*args, **options)
    settle(device)
    seen[what] += time.perf_counter() - began
    return result


@contextmanager
def _round_trips(device: str) -> Iterator[list[warnings.WarningMessage]]:
    """What PyTorch says of every operation for which the host waits."""
    if torch.device(device).type != "cuda":
        yield []
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
