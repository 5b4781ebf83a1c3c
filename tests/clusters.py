"""A Ray cluster of several nodes on this machine, for tests and scripts: real raylets, real workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Cluster", "cluster"]

ROOT = Path(__file__).resolve().parents[1]
QUICK_DEATHS = {
    # A node counts as dead after 2 s without an answer, and not after 15.
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


class Cluster:
    """A head that gives away no CPU, and nodes of one CPU each."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        from ray import cluster_utils

        self._environment = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), **environment}
        with self._started_with({}):
            self._cluster = cluster_utils.Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_DEATHS},
            )
        self.nodes: dict[Any, str] = {}
        """Their kinds."""

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self._cluster.address)

    def add(self, kind: str, *, environment: Mapping[str, str] | None = None, **resources: Any) -> Any:
        """One more node, of the kind that its label names."""
        with self._started_with(environment or {}):
            node = self._cluster.add_node(
                labels={"mtbench.machine": kind},
                include_dashboard=False,
                wait=False,
                **{"num_cpus": 1, **resources},
            )
        self.nodes[node] = kind
        return node

    def ready(self) -> None:
        """Wait until the cluster knows all of its nodes."""
        self._cluster.wait_for_nodes()

    def kill_node(self, node: Any) -> None:
        """As when its machine loses power: nothing of it gets the time to say anything."""
        processes = self._of(node)
        self._cluster.remove_node(node, allow_graceful=False)
        del self.nodes[node]
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def workers(self, node: Any) -> list[psutil.Process]:
        """mtbench's worker processes on a node."""
        return self._running(node, "mtbench.sweep.worker")

    def stations(self, node: Any) -> list[psutil.Process]:
        """The processes of Ray that a station of mtbench's is in."""
        return self._running(node, "ray::NodeStation")

    def _running(self, node: Any, words: str) -> list[psutil.Process]:
        found = []
        for process in self._of(node):
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _of(self, node: Any) -> list[psutil.Process]:
        (raylet,) = node.all_processes["raylet"]
        try:
            return psutil.Process(raylet.process.pid).children(recursive=True)
        except psutil.Error:
            return []

    @contextlib.contextmanager
    def _started_with(self, environment: Mapping[str, str]) -> Iterator[None]:
        """A node has the environment of whoever starts it."""
        before = dict(os.environ)
        os.environ.update({**self._environment, **environment})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


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
