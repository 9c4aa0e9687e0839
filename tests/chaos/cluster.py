"""A Ray cluster of two nodes on 127.0.0.1, in a process that outlives the runs which use it.

The second node may be lost and comes back; it does not see one folder, so that storage there is not shared.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.runs import actors, living

__all__ = ["TwoNodes"]

NODE: dict[str, Any] = {
    "num_cpus": 2,
    "num_gpus": 2,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "object_store_memory": 100 * 2**20,
}
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


class TwoNodes:
    """The cluster, as those see it who use it.

    Args:
        folder: takes what it says, and the folder that its second node does not see.
        environment: variables of its actors.

    Attributes:
        address: for `--address`.
        hidden: a folder that the second node does not see; None where nothing can be hidden here.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        hidden = folder / "hidden"
        hidden.mkdir()
        self.log = (folder / "cluster.log").open("wb")
        self.popen = psutil.Popen(
            [sys.executable, "-m", "tests.chaos.cluster", str(hidden)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True,
            env={**os.environ, **environment}, text=True,
        )  # fmt: skip
        about = self._answer()
        self.address: str = about["address"]
        self.raylet: int = about["raylet"]
        self.hidden = hidden if about["hides"] else None

    def _answer(self) -> dict[str, Any]:
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster ended: {Path(self.log.name).read_text()[-2000:]}")
        return json.loads(line)

    def family(self) -> list[psutil.Process]:
        """All processes of its nodes."""
        return living(self.popen.children(recursive=True))

    def actors(self) -> list[psutil.Process]:
        """Those of runs."""
        return actors(self.family())

    def lose_node(self) -> None:
        """Kill the second node's raylet; its workers die of it."""
        psutil.Process(self.raylet).kill()

    def new_node(self) -> None:
        """A new second node in place of the one that was lost."""
        self.popen.stdin.write("node\n")
        self.popen.stdin.flush()
        self.raylet = self._answer()["raylet"]

    def end(self) -> None:
        """End all of it."""
        family = self.family()
        self.popen.stdin.close()  # of which it ends
        try:
            self.popen.wait(30)
        except psutil.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()
        for process in living(family):
            process.kill()
        self.popen.stdout.close()
        self.log.close()


def _hide(folder: str) -> bool:
    """Lay an empty folder over one, for this process and those that it starts from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    return not libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"size=1m")


def main(hidden: str) -> None:
    """Hold the cluster until the other end of our input closes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    hides = _hide(hidden)
    node = cluster.add_node(**NODE)

    def tell(**about: object) -> None:
        raylet = node.all_processes["raylet"][0].process.pid
        print(json.dumps({"raylet": raylet, **about}), flush=True)

    tell(address=cluster.address, hides=hides)
    for _ in sys.stdin:
        cluster.remove_node(node, allow_graceful=False)
        node = cluster.add_node(**NODE)
        tell()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
