"""A Ray cluster of several nodes on this machine, for tests and scripts: real raylets, real workers.

Ray's own `cluster_utils` starts the nodes, in a process apart (``python -m tests.clusters``, told what to do
by lines of JSON): in whichever process it runs it makes a group of its own, handles SIGTERM, and leaves a
reaper that kills that group with all that is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Cluster", "Node", "cluster"]

ROOT = Path(__file__).resolve().parents[1]
QUICK_DEATHS = {
    # A node counts as dead after 2 s without an answer, and not after 15.
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
CLOSE_S = 60.0


@dataclass(frozen=True)
class Node:
    """One of the nodes."""

    number: int
    kind: str
    raylet: int
    """The process of Ray that all others of the node are started by."""


class Cluster:
    """A head that gives away no CPU, and nodes of one CPU each."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.clusters"],
            cwd=ROOT,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address: str = self._answer()["address"]
        self.nodes: dict[Node, str] = {}
        """Their kinds."""

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster's process ended with {self._server.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        print(json.dumps({"what": what, **more}), file=self._server.stdin, flush=True)
        return self._answer()

    def add(self, kind: str, *, environment: Mapping[str, str] | None = None, **resources: int) -> Node:
        """One more node, of the kind that its label names."""
        wanted = {"num_cpus": 1, "labels": {"mtbench.machine": kind}, **resources}
        found = self._ask("add", environment=dict(environment or {}), node=wanted)
        node = Node(found["number"], kind, found["raylet"])
        self.nodes[node] = kind
        return node

    def ready(self) -> None:
        """Wait until the cluster knows all of its nodes."""
        self._ask("ready")

    def kill_node(self, node: Node) -> None:
        """As when its machine loses power: nothing of it gets the time to say anything."""
        processes = self._of(node)
        self._ask("kill", number=node.number)
        del self.nodes[node]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def workers(self, node: Node) -> list[psutil.Process]:
        """mtbench's worker processes on a node."""
        return self._running(node, "mtbench.sweep.worker")

    def stations(self, node: Node) -> list[psutil.Process]:
        """The processes of Ray that a station of mtbench's is in."""
        return self._running(node, "ray::NodeStation")

    def _running(self, node: Node, words: str) -> list[psutil.Process]:
        found = []
        for process in self._of(node):
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _of(self, node: Node) -> list[psutil.Process]:
        try:
            return psutil.Process(node.raylet).children(recursive=True)
        except psutil.Error:
            return []

    def close(self) -> None:
        """End all of it."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        try:
            self._server.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


@contextlib.contextmanager
def cluster(kinds: Mapping[str, int], **environment: str) -> Iterator[Cluster]:
    """A cluster of so many nodes of each kind, up and known."""
    found = Cluster(environment)
    try:
        for kind, count in kinds.items():
            for _ in range(count):
                found.add(kind)
        found.ready()
        yield found
    finally:
        found.close()


def serve() -> None:
    """The process apart: do what each line of stdin says, until there is none."""
    from ray import cluster_utils

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever Ray prints is no answer
    found = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_DEATHS},
    )
    nodes: list[Any] = []
    print(json.dumps({"address": found.address}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if asked["what"] == "add":
            before = dict(os.environ)
            os.environ.update(asked["environment"])  # a node has that of whoever starts it
            nodes.append(found.add_node(include_dashboard=False, wait=False, **asked["node"]))
            os.environ.clear()
            os.environ.update(before)
            (raylet,) = nodes[-1].all_processes["raylet"]
            answer = {"number": len(nodes) - 1, "raylet": raylet.process.pid}
        elif asked["what"] == "kill":
            found.remove_node(nodes[asked["number"]], allow_graceful=False)
        else:
            found.wait_for_nodes()
        print(json.dumps(answer), file=answers, flush=True)
    found.shutdown()


if __name__ == "__main__":
    serve()
