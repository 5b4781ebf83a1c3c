"""The run: every planned row measured by a worker and on disk before the next begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

import mtbench
from mtbench.backend import Backend
from mtbench.measure.environment import environment
from mtbench.results import Measurement, RunFolder
from mtbench.support import support_of
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.process import Ended, WorkerProcess
from mtbench.workloads import Workload

__all__ = ["Progress", "Settings", "SweepRunner"]

START_TIMEOUT_S = 180.0
"""Importing a framework from a cold disk can take a minute."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is made, beside what it measures."""

    command: list[str]
    threads: int
    timeout_s: float
    host: bool = False
    memory_limit_bytes: int = field(default_factory=lambda: int(psutil.virtual_memory().available * 0.9))
    """Resident memory at which a worker is ended, before the kernel's killer picks a victim."""


class Progress:
    """What is told while it runs; a display overrides these."""

    def begin(self, rows: list[PlannedRow]) -> None:
        """All rows, before the first."""

    def row(self, index: int, row: PlannedRow, stage: str) -> None:
        """A row is at a stage."""

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        """A row is on disk."""


class SweepRunner:
    """Runs a plan into a folder. `run` may be interrupted by KeyboardInterrupt: what is measured is kept."""

    def __init__(
        self,
        folder: RunFolder,
        workload: Workload,
        rows: list[PlannedRow],
        backends: dict[str, Backend],
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._folder, self._workload, self._rows = folder, workload, rows
        self._backends, self._settings, self._progress = backends, settings, progress
        self._worker: WorkerProcess | None = None
        self._worker_of: tuple[str, str] | None = None
        self._problem: str | None = None
        self._logs = folder.folder / "logs"
        self._header: dict[str, Any] = {
            "mtbench": mtbench.__version__,
            "command": settings.command,
            "started": _now(),
            "finished": None,
            "outcome": "running",
            "plan": {
                "preset": workload.name or None,
                "why": workload.why,
                "seed": rows[0].case.seed,
                "sampling": workload.sampling.to_dict(),
                "timeout_s": settings.timeout_s,
                "memory_limit_bytes": settings.memory_limit_bytes,
                "rows": [self._outcome(row, "ok", "").id for row in rows],
            },
            "environment": environment(threads=settings.threads, host=settings.host),
            "workers": {},
            "support": [support_of(backend) for backend in backends.values()],
        }

    def run(self) -> list[Measurement]:
        """Measure every row.

        Raises:
            KeyboardInterrupt: after the workers are ended and the header says ``interrupted``.
        """
        self._logs.mkdir(exist_ok=True)
        self._folder.write_header(self._header)
        self._progress.begin(self._rows)
        done = []
        try:
            for index, row in enumerate(self._rows):
                measurement = row.decided or self._measure(index, row)
                self._folder.append(measurement)
                done.append(measurement)
                self._progress.done(index, row, measurement)
        except BaseException:
            self._stop_worker(kill=True)
            self._finish("interrupted")
            raise
        self._stop_worker()
        self._finish("complete")
        return done

    def _finish(self, outcome: str) -> None:
        self._folder.write_header({**self._header, "finished": _now(), "outcome": outcome})

    def _measure(self, index: int, row: PlannedRow) -> Measurement:
        try:
            worker = self._worker_for(index, row)
            if worker is None:
                return self._outcome(row, "unavailable", self._problem or "")
            answer = worker.measure(
                {
                    "case": row.case.to_dict(),
                    "form": row.form,
                    "sampling": self._workload.sampling.to_dict(),
                },
                self._settings.timeout_s,
                lambda stage: self._progress.row(index, row, stage),
            )
        except Ended as end:
            self._stop_worker(kill=True)
            return self._outcome(row, end.status, end.reason)
        measurement = Measurement.from_row(answer)
        if measurement.status in ("error", "oom"):
            # After a CUDA fault every later call in that process fails, and a failed allocation may leave
            # half a case behind: a new process costs seconds.
            self._stop_worker()
        return measurement

    def _worker_for(self, index: int, row: PlannedRow) -> WorkerProcess | None:
        key = (row.backend, row.case.device)
        if self._worker_of != key:
            self._stop_worker()
            self._problem = None
        if self._problem is not None:
            return None
        if self._worker is None:
            self._progress.row(index, row, "start")
            backend = self._backends[row.backend]
            self._worker_of = key
            self._worker = WorkerProcess(
                row.backend,
                row.case.device,
                threads=self._settings.threads,
                log=self._logs / f"{backend.name}-{row.case.device}.log",
                memory_limit=self._settings.memory_limit_bytes,
            )
            hello = self._worker.hello(START_TIMEOUT_S)
            self._header["workers"][f"{backend.name} on {row.case.device}"] = hello["environment"]
            if hello["problem"]:
                self._problem = hello["problem"]
                self._stop_worker()
                self._worker_of = key  # not tried again for its other rows
                return None
        return self._worker

    def _stop_worker(self, *, kill: bool = False) -> None:
        if self._worker is not None:
            self._worker.stop(kill=kill)
        self._worker = self._worker_of = None

    def _outcome(self, row: PlannedRow, status: str, reason: str) -> Measurement:
        return row.outcome(self._backends[row.backend].name, status, reason)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
