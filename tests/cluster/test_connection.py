"""Connecting to Ray: addresses, an instance of our own that nobody else reaches, and who answers nothing."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leamfast.engine.cluster.connection import check_address
from leamfast.errors import RequestError

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "bench")),
}


@pytest.mark.parametrize("address", [None, "local", "auto", "10.0.0.1:6379", "head:6379", "ray://head:10001"])
def test_addresses(address):
    check_address(address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", "http://head:8265", "ray://head", "head:port", ":1"]
)
def test_what_is_no_address(address):
    with pytest.raises(RequestError, match="--address, or RAY_ADDRESS, must be local"):
        check_address(address)


SCRIPT = """
import json, os, sys, psutil
from leamfast.engine.cluster.connection import connected

def sockets(process):
    return [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]

with connected("local", 1, 0):
    import ray
    print("a worker's words")  # stdout is the results'
    family = psutil.Process().children(recursive=True)
    listening = sorted({ip for process in [psutil.Process(), *family] for ip in sockets(process)})
    kinds = {" ".join(process.cmdline())[-200:] for process in family}
    token = os.environ["RAY_AUTH_TOKEN"]
    assert not any(token in word for process in family for word in process.cmdline())
gone, alive = psutil.wait_procs(family, timeout=20)
print(json.dumps({"listening": listening, "alive": len(alive), "processes": len(family), "token": token}))
"""


@pytest.mark.slow
def test_an_instance_of_our_own_is_on_loopback_and_leaves_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=200, env=ENVIRONMENT
    )
    assert run.returncode == 0, run.stderr
    import json

    found = json.loads(run.stdout)  # and nothing else is there
    assert found["processes"] >= 2
    assert {ip.removeprefix("::ffff:") for ip in found["listening"]} == {"127.0.0.1"}
    assert found["alive"] == 0
    assert len(found["token"]) == 64
    assert "a worker's words" in run.stderr


def batch(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        ROOT / "cli.py",
        "batch",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--model",
        "demo",
    ]
    return subprocess.run(
        [*command, "--align", "none", *options], capture_output=True, text=True, timeout=200, env=ENVIRONMENT
    )


def test_an_address_where_nobody_answers_is_told_at_once(faces, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        run = batch(faces, "--gpus", "4", "--address", address, "--out", str(tmp_path / "out"))
    assert run.returncode == 2, run.stderr
    assert f"nobody answers at Ray address {address}" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - began < 100


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--address", "local"], "--address local needs --gpus N or --workers N"),
        (["--gpus", "-1"], "--gpus must not be negative, got -1"),
        (["--gpus", "1", "--device", "cuda"], "--device cuda is for a run in this process"),
        (["--workers", "1", "--address", "nowhere"], "--address, or RAY_ADDRESS, must be"),
        (["--max-attempts", "0"], "--max-attempts must be at least 1, got 0"),
        (["--shard-timeout", "0"], "--shard-timeout must be above 0 seconds, got 0"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(faces, tmp_path, options, text, capsys, monkeypatch):
    from leamfast.cli.main import main

    words = [
        "leamfast",
        "batch",
        str(faces),
        "--out",
        str(tmp_path / "out"),
        "--model",
        "demo",
        "--align",
        "none",
    ]
    monkeypatch.setattr(sys, "argv", [*words, *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1
