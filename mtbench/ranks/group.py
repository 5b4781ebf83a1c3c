"""The ranks of a case, as the process that measures holds them."""

from __future__ import annotations

import atexit
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from mtbench.inputs import Array, Inputs
from mtbench.measure.environment import device_problem
from mtbench.ranks.arrays import forget, room_for_outputs, write_inputs, written
from mtbench.spec import Case
from mtbench.sweep.child import ChildProcess, Ended

__all__ = ["Group", "SpreadKernel", "check_devices", "group_of", "leave"]


FREE_PART = 0.9
"""Of the memory that is free, what the ranks may take together."""
LAST_WORDS = 2000
"""Characters of a rank's log that are told where it failed."""


class Group:
    """The processes of one backend over so many devices. They stay from case to case; whoever made them ends
    them, and when it ends itself they do."""

    def __init__(self, backend: str, device: str, ranks: int, threads: int) -> None:
        self.key = (backend, device, ranks)
        self.folder = Path(tempfile.mkdtemp(prefix="mtbench-ranks-"))
        self._processes: list[ChildProcess] = []
        limit = int(FREE_PART * psutil.virtual_memory().available / ranks)
        try:
            for rank in range(ranks):
                words = [backend, device, threads, rank, ranks, self.folder / "meet", os.getpid()]
                self._processes.append(
                    ChildProcess(
                        "mtbench.ranks.process",
                        [str(word) for word in words],
                        device=device,
                        threads=threads,
                        log=self.folder / f"rank-{rank}.log",
                        memory_limit=limit,
                        apart=False,  # whoever ends the worker ends them, in whatever state they are
                    )
                )
            self._answers("ready")
        except BaseException:
            self.stop()
            raise

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self._processes)

    @property
    def processes(self) -> tuple[int, ...]:
        """Their ids, in their order."""
        return tuple(process.id for process in self._processes)

    def ask(self, want: str, **task: Any) -> list[dict[str, Any]]:
        """What each rank answers, in their order. Waits for as long as it takes.

        Raises:
            Ended: a rank has ended, or failed; the group is then gone.
        """
        try:
            for rank, process in enumerate(self._processes):
                process.stage = want
                try:
                    process.send({"want": want, **task})
                except Ended as end:
                    raise self._named(rank, end) from None
            return self._answers(want)
        except BaseException:
            self.stop()
            raise

    def _answers(self, wanted: str) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        while len(found) < self.ranks:
            for rank, process in enumerate(self._processes):
                if rank in found:
                    continue
                try:
                    message = process.poll(math.inf, 0)
                except Ended as end:
                    raise self._named(rank, end) from None
                if message is None:
                    continue
                if failed := message.get("failed"):
                    raise self._named(rank, Ended(failed["status"], failed["reason"]))
                found[rank] = message[wanted]
        return [found[rank] for rank in range(self.ranks)]

    def _named(self, rank: int, end: Ended) -> Ended:
        log = self.folder / f"rank-{rank}.log"
        if log.exists():  # the folder goes, and the worker's log stays
            print(log.read_text(errors="replace")[-LAST_WORDS:], file=sys.stderr)  # noqa: T201
        return Ended(end.status, f"rank {rank} of {self.ranks}: {end.reason}", signal=end.signal)

    def stop(self) -> None:
        """End them all at once: one that is in a collective waits for the others for ever."""
        for process in self._processes:
            process.stop(kill=True)
        self._processes = []
        shutil.rmtree(self.folder, ignore_errors=True)
        if _GROUPS.get("") is self:
            del _GROUPS[""]


_GROUPS: dict[str, Group] = {}
"""The one that is there: as many processes as a case has ranks, and none of another case's."""


def group_of(backend: str, device: str, ranks: int, threads: int) -> Group:
    """The group that is there, where it is of that kind, or a new one in its place."""
    there = _GROUPS.get("")
    if there is not None and there.key == (backend, device, ranks) and there.ranks:
        return there
    leave()
    _GROUPS[""] = Group(backend, device, ranks, threads)
    return _GROUPS[""]


def leave() -> None:
    """End the group that is there."""
    if "" in _GROUPS:
        _GROUPS[""].stop()


atexit.register(leave)


def check_devices(case: Case, gpus: int) -> None:
    """Whether each rank can have a device of its own, here, with so many GPUs.

    Raises:
        Ended: with status ``unavailable``, if not.
    """
    if reason := device_problem(case.device):
        raise Ended("unavailable", reason)
    if case.device == "cuda" and gpus < case.world_size:
        raise Ended(
            "unavailable", f"world_size {case.world_size} needs as many GPUs, and this machine has {gpus}"
        )


class SpreadKernel:
    """A `mtbench.backend.Kernel` over a group, and a `mtbench.backend.Spread`."""

    untimed: str | None = None

    def __init__(self, group: Group, case: Case, form: str) -> None:
        self._group, self._case = group, case
        built = group.ask("build", case=case.to_dict(), form=form)[0]
        self.layout: str = built["layout"]
        self.config: Mapping[str, Any] = built["config"] | {"world_size": group.ranks}

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        write_inputs(self._group.folder, self._case, inputs)
        self._group.ask("load", folder=str(self._group.folder))
        forget(self._group.folder)

    def __call__(self) -> None:
        """See `Kernel.__call__`."""
        self._group.ask("call")

    def wait(self, result: Any) -> None:
        """See `Kernel.wait`: a call waits for all ranks."""

    def outputs(self, result: Any) -> Mapping[str, Array]:
        """See `Kernel.outputs`."""
        room_for_outputs(self._group.folder, self._case)
        self._group.ask("outputs", folder=str(self._group.folder))
        found = written(self._group.folder, self._case)
        forget(self._group.folder)  # what is mapped stays until nobody holds it
        return found

    def sample_ms(self) -> float:
        """See `Spread.sample_ms`."""
        return max(float(answer["ms"]) for answer in self._group.ask("sample"))

    def processes(self) -> tuple[int, ...]:
        """See `Spread.processes`."""
        return self._group.processes

    def peaks(self) -> tuple[list[int | None], str]:
        """See `Spread.peaks`."""
        answers = self._group.ask("peak")
        return [answer["bytes"] for answer in answers], f"{answers[0]['method']}, the rank that has the most"

    def traffic(self) -> tuple[int, float]:
        """See `Spread.traffic`."""
        answers = self._group.ask("traffic")
        return max(a["sent_bytes"] for a in answers), max(a["exposed_ms"] for a in answers)
