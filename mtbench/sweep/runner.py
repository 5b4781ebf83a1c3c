"""The run: every planned row measured by a worker and on disk before the next begins."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mtbench.backend import Backend
from mtbench.frameworks import MEMORY_WORKERS, MemoryWorker
from mtbench.measure.clocks import Sampling
from mtbench.results import Measurement
from mtbench.run_folder import RunFolder
from mtbench.sweep.plan import PlannedRow, orders
from mtbench.sweep.process import Ended, WorkerProcess

__all__ = ["Progress", "Settings", "SweepRunner"]

START_TIMEOUT_S = 180.0
"""Importing a framework from a cold disk can take a minute."""
CEILINGS_TIMEOUT_S = 60.0
"""They take a second, and more where a framework's libraries are loaded by them from a cold disk."""
NO_CEILINGS: Mapping[str, Any] = {"copy_bytes_per_s": None, "matmul_flop_per_s": {}}
"""What the header has where they could not be measured."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How rows are measured, beside what they are."""

    sampling: Sampling
    threads: int
    timeout_s: float
    memory_limit_bytes: int
    """Resident memory at which a worker is ended, before the kernel's killer picks a victim."""
    launches: int = 1
    """Times that every row is measured, in a fresh process each time."""
    interleaved: bool = True
    seed: int = 0
    """Of the order; each launch has another."""

    @property
    def order(self) -> dict[str, Any]:
        """What `mtbench.sweep.plan.orders` wants to know."""
        return {"seed": self.seed, "interleaved": self.interleaved, "launches": self.launches}


class Progress:
    """What is told while it runs; a display overrides these."""

    def begin(self, steps: Sequence[PlannedRow]) -> None:
        """All that will be measured, in order, before the first: with several launches a row comes again."""

    def row(self, index: int, row: PlannedRow, stage: str) -> None:
        """A step is at a stage."""

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        """A step is on disk."""


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


class SweepRunner:
    """Runs a plan into a folder. What the folder has already is not measured again."""

    def __init__(
        self,
        folder: RunFolder,
        header: dict[str, Any],
        rows: Sequence[PlannedRow],
        backends: Mapping[str, Backend],
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._folder, self._header, self._rows = folder, header, list(rows)
        self._backends, self._settings, self._progress = backends, settings, progress
        self._crews: dict[tuple[str, str], _Crew] = {}
        self._logs = folder.folder / "logs"
        self._compiled = ""
        """A folder for compiled programs that workers share, fresh for this run."""

    def run(self) -> None:
        """Measure every row, as many times as there are launches.

        Raises:
            KeyboardInterrupt: after the workers are ended and the header says ``interrupted``.
            StorageError: a row could not be written; the workers are ended.
        """
        with tempfile.TemporaryDirectory(prefix="mtbench-compiled-") as self._compiled:
            self._run()

    def _run(self) -> None:
        self._logs.mkdir(exist_ok=True)
        self._folder.write_header(self._header)
        passes = orders(self._rows, **self._settings.order)
        steps = [(launch, row) for launch, rows in enumerate(passes) for row in rows]
        steps = [(launch, row) for launch, row in steps if not self._done(row, launch)]
        self._progress.begin([row for _, row in steps])
        current = 0
        try:
            for index, (launch, row) in enumerate(steps):
                if launch != current:
                    self._stop_all()  # a launch is a fresh process
                    current = launch
                before = self._folder.rows.get(row.id)
                if before is not None and self._done(row, launch):  # a launch of this very run settled it
                    self._progress.done(index, row, before)
                    continue
                measurement = row.decided or self._measure(index, row, before)
                if before is not None:
                    measurement = before.joined(measurement)
                self._folder.append(measurement)
                self._progress.done(index, row, measurement)
        except BaseException:
            self._stop_all(kill=True)
            self._finish("interrupted")
            raise
        self._stop_all()
        self._folder.compact([row.id for row in self._rows])
        self._finish("complete")

    def _done(self, row: PlannedRow, launch: int) -> bool:
        """Whether the folder has this launch of the row: a row that failed or is not timed has one."""
        found = self._folder.rows.get(row.id)
        return found is not None and (not found.timed or found.launches > launch)

    def _finish(self, outcome: str) -> None:
        self._header |= {"finished": _now(), "outcome": outcome}
        self._folder.write_header(self._header)

    def _measure(self, index: int, row: PlannedRow, before: Measurement | None) -> Measurement:
        memory = "known" if before else "elsewhere" if self._memory_worker(row) else "here"
        task = {"case": row.case.to_dict(), "form": row.form}
        crew = self._crew(row)
        try:
            if crew.timing is None and crew.problem is None:
                self._progress.row(index, row, "start")
                self._start(crew, row)
            if crew.timing is None:
                return row.outcome("unavailable", crew.problem or "")
            answer = crew.timing.measure(
                {**task, "sampling": self._settings.sampling.to_dict(), "memory": memory},
                self._settings.timeout_s,
                lambda stage: self._progress.row(index, row, stage),
            )
        except Ended as end:
            crew.stop(kill=True)
            return row.outcome(end.status, end.reason)
        measurement = Measurement.from_row(answer)
        if measurement.status in ("error", "oom"):
            # After a CUDA fault every later call in that process fails, and a failed allocation may leave
            # half a case behind: a new process costs seconds.
            crew.stop()
        elif memory == "elsewhere" and measurement.timed:
            self._progress.row(index, row, "memory")
            measurement = self._with_memory(crew, row, measurement, task)
        return measurement

    def _with_memory(
        self, crew: _Crew, row: PlannedRow, measurement: Measurement, task: dict[str, Any]
    ) -> Measurement:
        try:
            if crew.memory is None:
                crew.memory = self._worker(row, memory=True)
                crew.memory.hello(START_TIMEOUT_S)
            peak = crew.memory.peak_memory(task, self._settings.timeout_s)
        except Ended as end:
            if crew.memory is not None:
                crew.memory.stop(kill=True)
                crew.memory = None
            peak = {"bytes": None, "method": f"not read: {end.status}: {end.reason}"}
        return replace(measurement, peak_memory_bytes=peak["bytes"], memory_method=peak["method"])

    def _crew(self, row: PlannedRow) -> _Crew:
        key = (row.asked, row.case.device)
        if key not in self._crews:
            if not self._settings.interleaved:
                self._stop_all()
            self._crews[key] = _Crew()
        return self._crews[key]

    def _start(self, crew: _Crew, row: PlannedRow) -> None:
        worker = crew.timing = self._worker(row)
        hello = worker.hello(START_TIMEOUT_S)
        name = f"{row.backend} on {row.case.device}"
        before = self._header["workers"].get(name, {})
        self._header["workers"][name] = hello["environment"]
        if hello["problem"]:
            crew.problem = hello["problem"]
            crew.stop()
        else:
            self._header["workers"][name] |= self._ceilings(crew, worker, row, before)
        self._folder.write_header(self._header)  # a run that is cut off is read by it too

    def _ceilings(
        self, crew: _Crew, worker: WorkerProcess, row: PlannedRow, before: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What the machine can reach, by this worker. Once a run: a worker is started again for every launch,
        and after every fault. One that ends over it is replaced: the rows need no ceiling."""
        if known := {key: before[key] for key in NO_CEILINGS if key in before}:
            return known
        try:
            return worker.ceilings(CEILINGS_TIMEOUT_S)
        except Ended:
            worker.stop(kill=True)
            crew.timing = self._worker(row)
            crew.timing.hello(START_TIMEOUT_S)
            return NO_CEILINGS

    def _memory_worker(self, row: PlannedRow) -> MemoryWorker | None:
        return MEMORY_WORKERS.get((self._backends[row.asked].framework, row.case.device))

    def _worker(self, row: PlannedRow, *, memory: bool = False) -> WorkerProcess:
        apart = self._memory_worker(row)
        environment: dict[str, str] = {}
        if apart is not None:
            environment = {apart.compiled_in: self._compiled}
            if memory:
                environment |= apart.environment
        name = f"{row.backend}-{row.case.device}{'-memory' if memory else ''}"
        return WorkerProcess(
            row.asked,
            row.case.device,
            threads=self._settings.threads,
            log=self._logs / f"{name}.log",
            memory_limit=self._settings.memory_limit_bytes,
            environment=environment,
        )

    def _stop_all(self, *, kill: bool = False) -> None:
        for crew in self._crews.values():
            crew.stop(kill=kill)
        self._crews.clear()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
