"""Rows measured on the nodes of a Ray cluster, one at a time on a device.

Ray finds the nodes, starts a station on each and carries rows there and back; it never measures: a station
starts mtbench's own worker processes (`mtbench.sweep.node`). A row comes back as it is done. A station that
is lost, by itself or with its node, loses the row it was at, which is measured again elsewhere, and no other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbench.backend import Backend
from mtbench.errors import BadInput
from mtbench.results import Measurement
from mtbench.spec import DEVICES, Device
from mtbench.sweep.cluster import Node, kind_of, kinds_of, merged
from mtbench.sweep.executor import Executor, Step, Told, Unfinished
from mtbench.sweep.machine import Machine
from mtbench.sweep.queue import Queue
from mtbench.sweep.ray_cluster import Survey, connected
from mtbench.sweep.ray_stations import Member, Stations, unfinished
from mtbench.sweep.settings import Settings

__all__ = ["RayExecutor"]

SURVEY_S = 120.0
"""For all nodes to answer, at the start; mtbench may lie on a cold disk there."""
LOOK_S = 2.0
"""Between two looks at which nodes there are."""


class RayExecutor(Executor):
    """See `mtbench.sweep.executor.Executor`.

    Args:
        address: of the cluster; None is the one that Ray finds here.
        accelerator: the type of GPU that a node must have, as Ray names it.
        wait_s: how long rows that no node can run wait for one that comes, or comes back.

    Raises:
        BadInput: as `connected`.
    """

    _workers: Stations | None = None

    def __init__(self, address: str | None, accelerator: str | None, wait_s: float) -> None:
        self.plan: Mapping[str, Any] = {"executor": "ray", "accelerator": accelerator, "wait_s": wait_s}
        self._ray = connected(address)
        self._accelerator, self._wait_s = accelerator, wait_s
        self._kinds: dict[str, Machine] = {}
        self._members: dict[str, Member] = {}
        self._counts: dict[str, int] = {}
        """Nodes of a kind that took part, gone ones among them."""

    def settle(self, settings: Settings) -> Settings:
        """Nothing: nodes differ."""
        return settings

    def machines(
        self,
        backends: Mapping[str, Backend],
        settings: Settings,
        recorded: Mapping[str, Machine],
        *,
        host: bool,
    ) -> dict[str, Machine]:
        """Those of the nodes that answer, run this mtbench and have what the rows need."""
        self._settings = settings
        self._survey = Survey(self._ray, list(backends), settings.threads, self._accelerator, host=host)
        self._survey.begin()
        nodes = list(self._survey.found(SURVEY_S))
        self._survey.give_up()
        if not nodes:
            why = self._left_out() or "none gives away a CPU"
            raise BadInput(f"no node of the Ray cluster can take part: {why}")
        if recorded:
            self._kinds, self._new = dict(recorded), nodes
            if not any(kind_of(node, recorded) for node in nodes):
                raise BadInput(
                    "it cannot be gone on with here, as rows of two kinds would stand in one run: no node is "
                    f"one of {', '.join(recorded)}; there is: {', '.join(kinds_of(nodes))}"
                )
            return {}
        self._new = []
        for kind, nodes_of_it in kinds_of(nodes).items():
            self._kinds[kind] = merged(nodes_of_it)
            for number, node in enumerate(nodes_of_it, start=1):
                self._members[node.id] = Member(node=node, kind=kind, number=number)
        return dict(self._kinds)

    def _left_out(self) -> str:
        counts = Counter(self._survey.left_out.values())
        return "; ".join(f"{count} node{'' if count == 1 else 's'}: {why}" for why, count in counts.items())

    def open(self, logs: Path, told: Told) -> None:
        """See `Executor.open`."""
        self._logs, self._told = logs, told
        if left_out := self._left_out():
            told.note(f"no part is taken by {left_out}")
        self._counts = {kind: len(machine.nodes) for kind, machine in self._kinds.items()}
        for node in self._new:
            self._join(node)

    def _join(self, node: Node) -> None:
        kind = kind_of(node, self._kinds)
        if kind is None:
            (name,) = kinds_of([node])
            self._told.note(f"no part is taken by 1 node: it is {name}, which is none of the run's kinds")
            return
        self._counts[kind] += 1
        self._members[node.id] = Member(node=node, kind=kind, number=self._counts[kind])
        self._told.joined(kind, node.facts)

    def measure(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Measurement]]:
        """One device after another: no row on a CPU is measured while the node's GPUs are at work."""
        yield from ((step, step.row.decided) for step in steps if step.row.decided)
        steps = [step for step in steps if not step.row.decided]
        missing: list[str] = []
        for device in DEVICES:
            these = [step for step in steps if step.row.case.device == device]
            if not these:
                continue
            queue = Queue(these, self._able, interleaved=self._settings.interleaved)
            try:
                yield from self._measure(queue, self._stations_for(device))
            except Unfinished as end:
                missing.append(str(end))
        if missing:
            raise Unfinished("; ".join(missing))

    def _able(self, node: str, step: Step) -> bool:
        member = self._members.get(node)
        if member is None:
            return False
        return member.node.machine.unavailable[step.row.asked][step.row.case.device] is None

    def _stations_for(self, device: Device) -> Stations:
        if self._workers is None or self._workers.device != device:
            super().close(kill=False)
            self._workers = Stations(
                self._ray, device, self._members, self._settings, self._survey.parcel, self._logs, self._told
            )
        return self._workers

    def _measure(self, queue: Queue, stations: Stations) -> Iterator[tuple[Step, Measurement]]:
        """Until nothing waits and nothing runs, or what waits has waited too long."""
        looked = worked = time.monotonic()
        while True:
            stations.man()
            stations.hand_out(queue)
            waiting = list(queue.waiting)
            now = time.monotonic()
            if stations.at_work:
                worked = now
            elif not waiting:
                return
            elif now - worked > self._wait_s and not stations.coming:
                raise unfinished(waiting)
            if now - looked > LOOK_S:
                looked = now
                self._look()
                stations.look(queue)
            yield from stations.answers(queue)

    def _look(self) -> None:
        """Which nodes have gone, and which have come."""
        alive = self._survey.alive()
        for gone in self._members.keys() - alive:
            del self._members[gone]
        self._survey.begin()
        for node in self._survey.found(0.0):
            self._join(node)

    def close(self, *, kill: bool) -> None:
        """See `Executor.close`."""
        super().close(kill=kill)
        self._ray.shutdown()
