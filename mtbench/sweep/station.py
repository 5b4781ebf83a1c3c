"""Where rows are measured one at a time, on this machine: the workers of each backend, kept alive from row to
row and replaced where one ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtbench.frameworks import MEMORY_WORKERS, MemoryWorker
from mtbench.results import Measurement
from mtbench.sweep.executor import Step, Told
from mtbench.sweep.process import Ended, WorkerProcess
from mtbench.sweep.settings import Settings

__all__ = ["Station", "longest_s"]

START_TIMEOUT_S = 180.0
"""Importing a framework from a cold disk can take a minute."""
CEILINGS_TIMEOUT_S = 60.0
"""They take a second, and more where a framework's libraries are loaded by them from a cold disk."""
ELSE_S = 300.0
"""For all else around a row: the workers of every backend that are ended one after another, files."""
NO_CEILINGS: Mapping[str, Any] = {"copy_bytes_per_s": None, "matmul_flop_per_s": {}}
"""What the header has where they could not be measured."""


@dataclass
class _Crew:
    """The workers of one backend on one device: one that times, and one for memory where that is apart."""

    timing: WorkerProcess | None = None
    memory: WorkerProcess | None = None
    problem: str | None = None
    """Why there is none, and none will be tried again."""

    def stop(self, *, kill: bool = False) -> None:
        for worker in (self.timing, self.memory):
            if worker is not None:
                worker.stop(kill=kill)
        self.timing = self.memory = None


class Station:
    """Measures what it is given.

    Args:
        settings: how; the number of threads is set.
        logs: a folder for what the workers print.
        locate: what a backend is called here, from what it was asked for as.
    """

    def __init__(
        self,
        settings: Settings,
        logs: Path,
        locate: Callable[[str], str] = lambda asked: asked,
    ) -> None:
        self._settings, self._logs, self._locate = settings, logs, locate
        self._memory_limit = settings.memory_limit_here
        self._crews: dict[tuple[str, str], _Crew] = {}
        self._reached: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._compiled = tempfile.TemporaryDirectory(prefix="mtbench-compiled-", ignore_cleanup_errors=True)
        """For compiled programs that workers share, fresh for this run."""

    def measure(self, step: Step, told: Told) -> tuple[Measurement, Ended | None]:
        """The row, and how the worker ended where that is what came of it."""
        row = step.row
        memory = "known" if step.known else "elsewhere" if _memory_worker(step) else "here"
        task = {"case": row.case.to_dict(), "form": row.form}
        crew = self._crew(step)
        try:
            if crew.timing is None and crew.problem is None:
                told.stage(step, "start")
                self._start(crew, step, told)
            if crew.timing is None:
                return row.outcome("unavailable", crew.problem or ""), None
            answer = crew.timing.measure(
                {**task, "sampling": self._settings.sampling.to_dict(), "memory": memory},
                self._settings.timeout_s,
                lambda stage: told.stage(step, stage),
            )
        except Ended as end:
            crew.stop(kill=True)
            return row.outcome(end.status, end.reason), end
        measurement = replace(Measurement.from_row(answer), hardware=row.hardware)
        if measurement.status in ("error", "oom"):
            # After a CUDA fault every later call in that process fails, and a failed allocation may leave
            # half a case behind: a new process costs seconds.
            crew.stop()
        elif memory == "elsewhere" and measurement.timed:
            told.stage(step, "memory")
            measurement = self._with_memory(crew, step, measurement, task)
        return measurement, None

    def _with_memory(
        self, crew: _Crew, step: Step, measurement: Measurement, task: dict[str, Any]
    ) -> Measurement:
        try:
            if crew.memory is None:
                crew.memory = self._worker(step, memory=True)
                crew.memory.hello(START_TIMEOUT_S)
            peak = crew.memory.peak_memory(task, self._settings.timeout_s)
        except Ended as end:
            if crew.memory is not None:
                crew.memory.stop(kill=True)
                crew.memory = None
            peak = {"bytes": None, "method": f"not read: {end.status}: {end.reason}"}
        return replace(measurement, peak_memory_bytes=peak["bytes"], memory_method=peak["method"])

    def _crew(self, step: Step) -> _Crew:
        key = (step.row.asked, step.row.case.device)
        if key not in self._crews:
            if not self._settings.interleaved:
                self.renew()
            self._crews[key] = _Crew()
        return self._crews[key]

    def _start(self, crew: _Crew, step: Step, told: Told) -> None:
        worker = crew.timing = self._worker(step)
        hello = worker.hello(START_TIMEOUT_S)
        says: dict[str, Any] = dict(hello["environment"])
        if hello["problem"]:
            crew.problem = hello["problem"]
            crew.stop()
        else:
            says |= self._ceilings(crew, worker, step)
        told.worker(step, says)

    def _ceilings(self, crew: _Crew, worker: WorkerProcess, step: Step) -> Mapping[str, Any]:
        """What the machine can reach, by this worker. Once a run: a worker is started again for every launch,
        and after every fault. One that ends over it is replaced: the rows need no ceiling."""
        known = {key: step.ceilings[key] for key in NO_CEILINGS if key in step.ceilings}
        key = (step.row.asked, step.row.case.device)
        if key not in self._reached:
            try:
                self._reached[key] = known or worker.ceilings(CEILINGS_TIMEOUT_S)
            except Ended:
                worker.stop(kill=True)
                self._reached[key] = NO_CEILINGS
                crew.timing = self._worker(step)
                crew.timing.hello(START_TIMEOUT_S)
        return self._reached[key]

    def _worker(self, step: Step, *, memory: bool = False) -> WorkerProcess:
        apart = _memory_worker(step)
        environment: dict[str, str] = {}
        if apart is not None:
            environment = {apart.compiled_in: self._compiled.name}
            if memory:
                environment |= apart.environment
        row, threads = step.row, self._settings.threads
        assert threads is not None  # noqa: S101  (the constructor's contract)
        name = f"{row.backend}-{row.case.device}{'-memory' if memory else ''}"
        return WorkerProcess(
            self._locate(row.asked),
            row.case.device,
            threads=threads,
            log=self._logs / f"{name}.log",
            memory_limit=self._memory_limit,
            environment=environment,
        )

    def renew(self, *, kill: bool = False) -> None:
        """End the workers: the next rows are measured in new ones."""
        for crew in self._crews.values():
            crew.stop(kill=kill)
        self._crews.clear()

    def close(self, *, kill: bool) -> None:
        """End the workers, and measure no more."""
        self.renew(kill=kill)
        self._compiled.cleanup()


def longest_s(settings: Settings) -> float:
    """The most that one row may take a station, in seconds: its worker may be started twice, once for the
    ceilings, and one for memory behind it."""
    return 3 * START_TIMEOUT_S + CEILINGS_TIMEOUT_S + 2 * settings.timeout_s + ELSE_S


def _memory_worker(step: Step) -> MemoryWorker | None:
    return MEMORY_WORKERS.get((step.framework, step.row.case.device))
