"""The stations of a sweep on a Ray cluster: started where a row can be measured, given rows one at a time,
and replaced where one is lost."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtbench.results import Measurement
from mtbench.spec import Device
from mtbench.sweep.cluster import Node, Slot, slots_of
from mtbench.sweep.executor import Step, Told, Unfinished
from mtbench.sweep.node import Answer, NodeStation, Parcel
from mtbench.sweep.queue import Place, Queue
from mtbench.sweep.ray_cluster import last_line, on_node
from mtbench.sweep.settings import Settings
from mtbench.sweep.station import longest_s

__all__ = ["Member", "Stations", "unfinished"]

MOST_LOSSES = 3
"""Times that a row may be lost before that is what came of it; and that a place may lose its station, with no
row between, before it is given up."""
POLL_S = 0.5
BUSY_S = 30.0
"""After so long a user is told that others hold what a station waits for."""
CLOSE_S = 10.0
"""For stations to end their workers."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that takes part."""

    node: Node
    kind: str
    number: int
    """Among the nodes of its kind."""

    @property
    def name(self) -> str:
        """For people."""
        return f"node {self.number} of {self.kind}"


@dataclass(kw_only=True)
class _Manned:
    """A place, and the station that was started there."""

    member: Member
    slot: Slot
    place: Place
    actor: Any
    ready: bool = False
    began: float = field(default_factory=time.monotonic)
    """When it was asked for what it is at."""
    told: bool = False


class Stations:
    """Those of one device. `members` may change between any two calls.

    Args:
        ray: connected.
        device: what they measure on.
        members: the nodes, by Ray's name for each.
        settings: how rows are measured.
        parcel: the backends that are files.
        logs: a folder for what workers print.
        told: what is told.
    """

    def __init__(
        self,
        ray: Any,
        device: Device,
        members: dict[str, Member],
        settings: Settings,
        parcel: Parcel,
        logs: Path,
        told: Told,
    ) -> None:
        self._ray, self.device, self._members = ray, device, members
        self._settings, self._parcel, self._logs, self._told = settings, parcel, logs, told
        self._longest_s = longest_s(settings)
        self._manned: dict[Any, _Manned] = {}
        """By the key of the place."""
        self._running: dict[Any, tuple[_Manned, Step | None]] = {}
        """By what was asked of Ray: a step, or to be ready."""
        self._losses: Counter[Any] = Counter()
        """By the key of the place, since the last row that came back from it."""

    def man(self) -> None:
        """Start a station at every place that has none. Ray keeps what it holds from all others."""
        for member in self._members.values():
            for slot in slots_of(member.node, self.device):
                key = (member.node.id, slot.number)
                if key in self._manned or self._losses[key] >= MOST_LOSSES:
                    continue
                actor = (
                    self._ray.remote(NodeStation)
                    .options(num_cpus=slot.cpus, num_gpus=slot.gpus, **on_node(member.node.id))
                    .remote(replace(self._settings, threads=slot.threads), self._parcel)
                )
                place = Place(key=key, node=member.node.id, kind=member.kind)
                manned = _Manned(member=member, slot=slot, place=place, actor=actor)
                self._manned[key] = manned
                self._running[actor.ready.remote()] = (manned, None)

    @property
    def at_work(self) -> bool:
        """Whether a row is being measured."""
        return any(step is not None for _, step in self._running.values())

    @property
    def coming(self) -> bool:
        """Whether a station is on its way to a node that is there: others may hold what it waits for."""
        return any(
            not manned.ready and manned.place.node in self._members for manned in self._manned.values()
        )

    def hand_out(self, queue: Queue) -> None:
        """Give a step to every place that is free and can run one."""
        taken = {manned.place.key for manned, step in self._running.values() if step is not None}
        for manned in self._manned.values():
            if not manned.ready or manned.place.key in taken:
                continue
            step = queue.take(manned.place, self.able(manned.place.kind))
            if step is not None:
                self._told.stage(step, f"on {manned.member.name}")
                manned.began = time.monotonic()
                self._running[manned.actor.measure.remote(step)] = (manned, step)

    def able(self, kind: str) -> set[str]:
        """The nodes of a kind that a station is at, or will soon be at."""
        return {
            manned.place.node
            for manned in self._manned.values()
            if manned.place.kind == kind and (manned.ready or not manned.told)
        }

    def answers(self, queue: Queue) -> Iterator[tuple[Step, Measurement]]:
        """Wait a little; the rows that have come back meanwhile. What was lost goes back to the queue."""
        if not self._running:
            time.sleep(POLL_S)
            return
        ready, _ = self._ray.wait(list(self._running), timeout=POLL_S)
        for asked in ready:
            manned, step = self._running.pop(asked)
            try:
                answer: Answer | None = self._ray.get(asked)
            except self._ray.exceptions.RayError as error:
                yield from self._gone(queue, manned, step, f"its station was lost: {last_line(error)}")
                continue
            manned.ready = True
            if step is not None and answer is not None:
                self._losses[manned.place.key] = 0
                yield from self._answered(queue, manned, step, answer)
        yield from self._silent(queue)

    def _silent(self, queue: Queue) -> Iterator[tuple[Step, Measurement]]:
        """A station that has said nothing for longer than any row may take: Ray sees that a process ends, and
        not that it stands still."""
        for asked, (manned, step) in list(self._running.items()):
            if step is None or time.monotonic() - manned.began <= self._longest_s:
                continue
            answered, _ = self._ray.wait([asked], timeout=0)  # while this process itself stood still
            if not answered:
                del self._running[asked]
                why = f"its station has not answered for {self._longest_s:.0f} s"
                yield from self._gone(queue, manned, step, why)

    def _gone(
        self, queue: Queue, manned: _Manned, step: Step | None, why: str
    ) -> Iterator[tuple[Step, Measurement]]:
        self._drop(queue, manned)
        self._losses[manned.place.key] += 1
        if step is not None:
            yield from self._lost(queue, manned, step, why)

    def _answered(
        self, queue: Queue, manned: _Manned, step: Step, answer: Answer
    ) -> Iterator[tuple[Step, Measurement]]:
        member, measurement = manned.member, answer.measurement
        for name, printed in answer.logs.items():
            with (self._logs / f"{member.kind}-{member.number}-{name}").open("ab") as file:
                file.write(printed)
        for says in answer.workers:
            self._told.worker(step, says)
        if answer.killed:
            yield from self._lost(queue, manned, step, measurement.reason)
            return
        if measurement.status == "unavailable":
            queue.unable(member.node.id, step)
            if any(queue.may(node, step) for node in self.able(member.kind)):
                queue.back(step)
                return
        machine = tuple({**launch, "node": member.number} for launch in measurement.machine)
        yield step, replace(measurement, machine=machine)

    def _lost(
        self, queue: Queue, manned: _Manned, step: Step, why: str
    ) -> Iterator[tuple[Step, Measurement]]:
        lost_on = queue.lost(step, manned.place.node)
        if len(lost_on) >= MOST_LOSSES:
            yield step, step.row.outcome("crash", f"lost {len(lost_on)} times; the last: {why}")
            return
        self._told.note(f"{step.row.id} was lost on {manned.member.name} and is measured again: {why}")
        queue.back(step)

    def look(self, queue: Queue) -> None:
        """Give up the stations of nodes that are members no more, and say which wait for others' work."""
        for manned in list(self._manned.values()):
            busy = any(other is manned for other, _ in self._running.values())
            if manned.place.node not in self._members and not busy:
                self._drop(queue, manned)
            if not manned.ready and not manned.told and time.monotonic() - manned.began > BUSY_S:
                manned.told = True
                self._told.note(f"waits for {manned.member.name}, whose CPUs or GPUs others hold")

    def _drop(self, queue: Queue, manned: _Manned) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(manned.actor)
        self._manned.pop(manned.place.key, None)
        queue.release(manned.place)

    def renew(self) -> None:
        """What is measured next is measured in fresh processes. A station that does not answer is found to be
        lost by what it is asked next."""
        asked = [manned.actor.renew.remote() for manned in self._manned.values() if manned.ready]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=CLOSE_S)

    def close(self, *, kill: bool) -> None:
        """End them all."""
        if not kill:
            asked = [manned.actor.close.remote() for manned in self._manned.values() if manned.ready]
            if asked:
                self._ray.wait(asked, num_returns=len(asked), timeout=CLOSE_S)
        for manned in self._manned.values():
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(manned.actor)
        self._manned.clear()
        self._running.clear()


def unfinished(steps: list[Step]) -> Unfinished:
    """That these were not measured, and why."""
    counts = Counter(step.row.hardware for step in steps)
    rows = ", ".join(f"{count} row{'' if count == 1 else 's'} on {kind}" for kind, count in counts.items())
    return Unfinished(f"no node is left that can run {rows}")
