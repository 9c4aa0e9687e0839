"""The registry of benchmarks: what `leamfast bench` can run, and what every result says of its origin."""

import datetime
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch

from leamfast.errors import RequestError
from leamfast.models.devices import check_device, device_name

__all__ = ["Benchmark", "Options", "Table", "names", "origin", "registered", "run"]

VERSIONS = (
    *("leamfast", "torch", "triton", "numpy", "opencv-python", "pillow", "pyfacer", "dlib-bin"),
    *("h5py", "ray"),
    *("grad-cam", "captum", "torchcam", "POT", "geomloss"),
)


@dataclass(frozen=True)
class Options:
    """What all benchmarks are asked.

    Attributes:
        small: the form that runs in minutes.
        device: where models compute.
        threads: how many threads compute, in each process.
        workers: processes, where a benchmark can share its work among them.
        folder: what the benchmark keeps between runs, or trained models; None: what ships.
        method: `module:function` of the user's, beside ours and the peers.
        trust_code: whether that may run.
        data: photos of the user's.
        detector: face detectors, as other commands take them.
        model: SPEC of a model of the user's; None: the one that the benchmark has.
        note: told of progress.
    """

    small: bool = False
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    folder: Path | None = None
    method: str | None = None
    trust_code: bool = False
    data: Path | None = None
    detector: tuple[str, ...] = ()
    model: str | None = None
    note: Callable[[str], None] = print


@dataclass(frozen=True)
class Table:
    """A result for people to read; pages refer to it by its name."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        summary: what it measures, in a line.
        takes: which of the options models, method, workers, data, detector and model mean something to it.
        run: options -> results, as JSON has them.
        tables: results -> tables.
    """

    summary: str
    takes: tuple[str, ...]
    run: Callable[[Options], dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], list[Table]]


MODULES = {
    "engine": "leamfast_bench.engine.benchmark",
    "faces": "leamfast_bench.faces.benchmark",
    "kernels": "leamfast_bench.kernels.benchmark",
    "maps": "leamfast_bench.maps.benchmark",
    "occlusion": "leamfast_bench.occlusion.benchmark",
    "similarity": "leamfast_bench.similarity.benchmark",
    "truth": "leamfast_bench.truth.benchmark",
}
"""Name -> module with the `BENCHMARK`; imported when it is asked for."""


def names() -> tuple[str, ...]:
    """Names of the benchmarks."""
    return tuple(MODULES)


def registered(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        RequestError: there is none.
    """
    if name not in MODULES:
        raise RequestError(f"benchmark must be one of {', '.join(MODULES)}, got {name!r}")
    benchmark: Benchmark = import_module(MODULES[name]).BENCHMARK
    return benchmark


def run(name: str, options: Options) -> dict[str, Any]:
    """`{"metadata": ..., "results": ...}` of a benchmark."""
    benchmark = registered(name)
    check_device(options.device)
    ignored: dict[str, object] = {
        "models": options.folder,
        "method": options.method,
        "workers": max(0, options.workers - 1),
    }
    ignored |= {"data": options.data, "detector": options.detector, "model": options.model}
    for option, value in ignored.items():
        if value and option not in benchmark.takes:
            raise RequestError(f"--{option} means nothing to the benchmark {name}: leave it out")
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, unless a benchmark asks for less
    return {"metadata": origin(name, options), "results": benchmark.run(options)}


def origin(name: str, options: Options) -> dict[str, Any]:
    """Where a result comes from: machine, versions, commit."""
    versions = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "small": options.small,
        "device": device_name(options.device),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "workers": options.workers,
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of the checkout, with `+` where files differ from it; `unknown` outside of one."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        ours = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(ours, capture_output=True, check=True)  # not someone's who installed us there
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
