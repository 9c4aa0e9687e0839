"""A Ray cluster of two nodes on 127.0.0.1 with GPUs that are none, in a process of its own."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

from leamfast_bench.faces.environment import environment

__all__ = ["GPUS", "two_nodes"]

GPUS = 4
PATIENCE = 60.0
NODE: dict[str, Any] = {
    "num_cpus": GPUS,
    "num_gpus": GPUS // 2,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "object_store_memory": 200 * 2**20,
}


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster that is there while the block runs, in a process of its own.

    With a token of this process, which must not have imported Ray before: it reads its settings once.
    """
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Without the first of these the head does not take 127.0.0.1 for its address, whatever it is told.
    settings |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    paths = os.pathsep.join(path for path in sys.path if path)
    with (
        environment(**settings),
        TemporaryDirectory(prefix="lb-", ignore_cleanup_errors=True) as folder,
        (Path(folder) / "said.txt").open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", "leamfast_bench.engine.two_nodes", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
            env={**os.environ, "PYTHONPATH": paths},
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        late = Timer(2 * PATIENCE, process.kill)
        late.start()
        try:
            address = process.stdout.readline().strip()
            late.cancel()
            if not address:
                raise RuntimeError(f"no cluster: {(Path(folder) / 'said.txt').read_text()[-2000:]}")
            yield address
        finally:
            late.cancel()
            process.stdin.close()  # of which it ends
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def main(folder: str) -> None:
    """Hold the cluster until the other end of our input closes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "temp_dir": folder})
    cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
