"""A run as a job of a Ray cluster: submitted from a clean checkout, with a token, on loopback."""

import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from leamfast.store.verify import verify

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
README = (ROOT / "README.md").read_text(encoding="utf-8")
(LINE,) = re.findall(r"^ray (job submit .*) -- (python cli\.py) (.*)$", README, flags=re.MULTILINE)
SUBMIT, PROGRAM, RUN = map(shlex.split, LINE)
UPLOAD_BYTES = 8_000_000
"""What a checkout may take in the upload: the code, and 4.7 MB of three small networks."""


HEAVY = (
    ".venv/lib.so",
    ".git/objects/pack",
    "out/part.bin",
    "leamfast-demo/x.png",
    "RUN/shards/part-00000.h5",
)
"""What lies about in a checkout and must stay where it is."""


@dataclass(frozen=True)
class Head:
    """The head of a cluster of one node."""

    process: subprocess.Popen
    address: str
    folder: Path
    env: dict[str, str]
    token: Path

    def ray(self, *words: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
        """Run `ray` as somebody beside the cluster does."""
        command = [RAY, *map(str, words)]
        return subprocess.run(
            command,
            env={**self.env, **env},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def get(self, path: str) -> dict:
        """What the dashboard answers."""
        request = urllib.request.Request(f"{self.address}/api/{path}")
        request.add_header("Authorization", f"Bearer {self.token.read_text()}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def processes(self) -> list[psutil.Process]:
        """The head and all that it started."""
        with suppress(psutil.NoSuchProcess):
            head = psutil.Process(self.process.pid)
            return [head, *head.children(recursive=True)]
        return []


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="lf", dir="/tmp"))  # sockets' paths have 107 bytes at most
    token = tmp_path_factory.mktemp("token") / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    ports = _free_ports(7)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    env["PATH"] = os.pathsep.join([str(RAY.parent), env.get("PATH", "")])  # `python` is the one of the tests
    # Without this Ray replaces 127.0.0.1 by an address that others reach, and listens on every interface.
    env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    env |= {"AUTOSCALER_METRIC_PORT": str(ports[5]), "DASHBOARD_METRIC_PORT": str(ports[6])}
    command = [
        RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
        f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}",
        f"--dashboard-agent-listen-port={ports[3]}", f"--metrics-export-port={ports[4]}",
        "--min-worker-port=0", "--max-worker-port=0",
        "--num-cpus=1", "--num-gpus=4", f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("head") / "log"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        output = stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        started = Head(process, f"http://127.0.0.1:{ports[1]}", folder, env, token)
        stack.callback(_end, started)
        _wait_until_it_answers(started, log)
        yield started


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_it_answers(head: Head, log: Path) -> None:
    for _ in range(120):
        assert head.process.poll() is None, log.read_text()
        with suppress(OSError):
            head.get("version")
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def _end(head: Head) -> None:
    """End the head and whatever it started, and nothing else: other clusters may run here."""
    started = head.processes()
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.process.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files of the repository as they are now, without what is built or computed beside them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("checkout") / "leamfast"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("job") / "out"


@pytest.fixture(scope="module")
def jobs(head, checkout, faces, out) -> dict[str, subprocess.CompletedProcess]:
    """Two jobs, submitted at the same time: one that is right and one that is not."""
    for name in HEAVY:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(os.urandom(1_000_000))
    (checkout / "run.toml").write_text(
        f'[request]\ndata = "{faces}"\nout = "{out}"\nmodel = ["demo=random:0"]\nalign = "none"\n'
        'layers = ["conv1,layer2.0.conv1"]\nshard_images = 12\nthreads = 1\n'
    )

    def submit(name: str, *words: str) -> subprocess.CompletedProcess:
        there = [head.address if word.startswith("http:") else word for word in SUBMIT]
        return head.ray(*there, "--submission-id", name, "--", *PROGRAM, *words, cwd=checkout)

    with ThreadPoolExecutor() as pool:
        whole = pool.submit(submit, "whole", *RUN)
        wrong = pool.submit(submit, "wrong", "batch", "--config", "nowhere.toml")
        return {"whole": whole.result(), "wrong": wrong.result()}


def test_a_run_is_submitted_as_a_job(head, jobs, out):
    done = jobs["whole"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "48 images of 12 people" in done.stdout
    assert verify(out) == []
    job = head.get("jobs/whole")
    assert (job["status"], job["driver_exit_code"]) == ("SUCCEEDED", 0)


def test_environments_and_results_stay_out_of_the_upload(head, jobs):
    (uploaded,) = head.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [path for path in uploaded.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {"cli.py", "run.toml"} <= {path.relative_to(uploaded).as_posix() for path in files}
    assert not [name for name in (*HEAVY, "tests/conftest.py") if (uploaded / name).is_file()]
    assert sum(path.stat().st_size for path in files) < UPLOAD_BYTES


def test_a_job_that_fails_says_how(head, jobs):
    done = jobs["wrong"]
    assert done.returncode == 1
    assert "nowhere.toml cannot be read" in done.stdout
    job = head.get("jobs/wrong")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)  # the request was wrong
    assert "exit code 2" in job["message"]


def test_another_token_is_refused(head, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(32))
    done = head.ray("job", "list", "--address", head.address, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode != 0
    assert "authentication" in (done.stdout + done.stderr).lower()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=10)


def test_nothing_listens_beyond_this_machine(head):
    listening = [
        (process.name(), *connection.laddr)
        for process in head.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    elsewhere = [
        found for found in listening if not found[1].removeprefix("::ffff:").startswith(("127.", "::1"))
    ]
    assert elsewhere == []
