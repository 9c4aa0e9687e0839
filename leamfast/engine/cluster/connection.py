"""Connecting to Ray: an instance of our own on this machine, or a cluster that is there."""

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from leamfast.errors import RequestError, first_line

__all__ = ["LOCAL", "check_address", "connected", "is_client"]

LOCAL = "local"
"""The address of an instance of our own."""

KNOCK = 10.0  # seconds

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

PACKAGES = ("leamfast", "leamfast_kernels", "leamfast_bench")


def check_address(address: str | None) -> None:
    """Raise a RequestError unless an address is `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`."""
    if address in (None, LOCAL, "auto"):
        return
    try:
        parts = urlsplit(address if "://" in str(address) else f"gcs://{address}")
        good = parts.scheme in ("gcs", "ray") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        good = False
    if not good:
        raise RequestError(
            "--address, or RAY_ADDRESS, must be local, auto, HOST:PORT or ray://HOST:PORT of a Ray cluster, "
            f"got {address!r}"
        )


@contextmanager
def connected(address: str | None, cpus: int, gpus: int) -> Iterator[None]:
    """Connected to Ray while the block runs; an instance of our own ends with it.

    An instance of our own listens on the loopback interface only, with a token that nobody else knows.

    Args:
        address: `local` for an instance of our own, `auto` for the one that runs here, `HOST:PORT` or
            `ray://HOST:PORT`; None for the cluster that RAY_ADDRESS names, as it does inside a Ray job, or
            else an instance of our own.
        cpus, gpus: what an instance of our own must have to offer.

    Raises:
        RequestError: there is no such cluster, or it does not let us in.
    """
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    check_address(address)
    if address == LOCAL:
        _keep_to_this_machine()
    elif address != "auto":
        _knock(address)
    import ray

    if ray.is_initialized():
        raise RequestError("this process is connected to Ray already: call ray.shutdown() before a run")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    options["namespace"] = f"leamfast-{secrets.token_hex(8)}"
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": max(cpus, os.cpu_count() or 1)}
        os.environ["PYTHONPATH"] = _python_path()
    elif packages := _checkout():
        options["runtime_env"] = {"py_modules": packages, "excludes": ["__pycache__"]}
    try:
        ray.init(address, **options)
    except Exception as exc:
        raise RequestError(
            f"Ray at {address} cannot be reached ({first_line(exc)}): check --address, that the cluster runs "
            "the same versions of Ray and Python, and the token that RAY_AUTH_TOKEN_PATH names"
        ) from exc
    with redirect_stdout(sys.stderr):  # where Ray prints what it has to say about workers
        try:
            offered = ray.cluster_resources().get("GPU", 0)
            if address == LOCAL and gpus > offered:
                raise RequestError(
                    f"--gpus {gpus} asks for more than the {offered:.0f} of this machine: ask for fewer, "
                    "for --workers on the CPU, or give the --address of a cluster"
                )
            yield
        finally:
            ray.shutdown()


def is_client() -> bool:
    """Whether we speak to the cluster through `ray://`, so that no node of it is this machine."""
    from ray.util.client import ray as client

    return bool(client.is_connected())


def _knock(address: str) -> None:
    """Find out in seconds whether anyone answers, for which Ray takes minutes.

    Raises:
        RequestError: nobody does.
    """
    parts = urlsplit(address if "://" in address else f"gcs://{address}")
    assert parts.hostname is not None
    try:
        socket.create_connection((parts.hostname, parts.port or 0), KNOCK).close()
        if ip_address(socket.gethostbyname(parts.hostname)).is_loopback and "ray" not in sys.modules:
            os.environ[LOOPBACK] = "0"  # else Ray asks for the same port at this machine's other address
    except OSError as exc:
        raise RequestError(
            f"nobody answers at Ray address {address} ({exc.strerror or exc}): check --address, RAY_ADDRESS, "
            "and that the cluster runs"
        ) from exc


def _keep_to_this_machine() -> None:
    """Tell Ray, before it is imported, to live on 127.0.0.1 with a token of this process.

    Ray takes 127.0.0.1 for its node only where clusters are off; its servers then listen there alone.

    Raises:
        RequestError: Ray was imported before, and so has read these settings.
    """
    if os.environ.get(LOOPBACK) == "0" and "RAY_AUTH_TOKEN" in os.environ:
        return
    if "ray" in sys.modules:
        raise RequestError(
            "Ray was imported in this process before leamfast could tell it to keep to this machine: run in "
            f"a process of its own, set {LOOPBACK}=0 and RAY_AUTH_MODE=token before, or give the address of "
            "a cluster"
        )
    os.environ[LOOPBACK] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _python_path() -> str:
    """PYTHONPATH of workers on this machine: where our packages are imported from, if not installed."""
    roots = [str(Path(folder).parent) for folder in _checkout()]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(path for path in [*roots, *given] if path))


def _folders() -> list[Path]:
    specs = [find_spec(name) for name in PACKAGES]
    return [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]


def _checkout() -> list[str]:
    """Our packages' folders where they are no installed ones: nodes do not have those."""
    return [str(path) for path in _folders() if "site-packages" not in path.parts]
