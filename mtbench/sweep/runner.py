"""The run: every planned row measured by an executor, and on disk as it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mtbench.backend import Backend
from mtbench.results import Measurement
from mtbench.run_folder import RunFolder
from mtbench.sweep.executor import Executor, Step, Told, Unfinished
from mtbench.sweep.plan import PlannedRow, orders
from mtbench.sweep.settings import Settings

__all__ = ["Progress", "SweepRunner"]


class Progress:
    """What is told while it runs; a display overrides these."""

    def begin(self, steps: Sequence[PlannedRow]) -> None:
        """All that will be measured, in order, before the first: with several launches a row comes again."""

    def row(self, index: int, row: PlannedRow, stage: str) -> None:
        """A step is at a stage."""

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        """A step is on disk."""

    def note(self, text: str) -> None:
        """What a user should know of the machines, in one line."""


class SweepRunner:
    """Runs a plan into a folder. What the folder has already is not measured again."""

    def __init__(
        self,
        folder: RunFolder,
        header: dict[str, Any],
        rows: Sequence[PlannedRow],
        backends: Mapping[str, Backend],
        settings: Settings,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self._folder, self._header, self._rows = folder, header, list(rows)
        self._backends, self._settings, self._progress = backends, settings, progress
        self._executor = executor

    def run(self) -> None:
        """Measure every row, as many times as there are launches.

        Raises:
            KeyboardInterrupt: after the workers are ended and the header says ``interrupted``.
            StorageError: a row could not be written; the workers are ended.
            Unfinished: some rows could not be measured, and the header says ``unfinished``.
        """
        logs = self._folder.folder / "logs"
        logs.mkdir(exist_ok=True)
        self._folder.write_header(self._header)
        try:
            told = Told(stage=self._stage, worker=self._worker, joined=self._joined, note=self._note)
            self._executor.open(logs, told)
            self._launches()
        except Unfinished:
            self._executor.close(kill=False)
            self._finish("unfinished")
            raise
        except BaseException:
            self._executor.close(kill=True)
            self._finish("interrupted")
            raise
        self._executor.close(kill=False)
        self._folder.compact([row.id for row in self._rows])
        self._finish("complete")

    def _launches(self) -> None:
        passes = orders(self._rows, **self._settings.order)
        steps = [(launch, row) for launch, rows in enumerate(passes) for row in rows]
        steps = [(launch, row) for launch, row in steps if not self._done(row, launch)]
        self._progress.begin([row for _, row in steps])
        missing: list[str] = []
        for launch in dict.fromkeys(launch for launch, _ in steps):
            if launch != steps[0][0]:
                self._executor.renew()  # a launch is a fresh process
            these = [(index, row) for index, (of, row) in enumerate(steps) if of == launch]
            try:
                self._launch(launch, these)
            except Unfinished as end:
                missing.append(str(end))
        if missing:
            raise Unfinished(missing[0])

    def _launch(self, launch: int, steps: Sequence[tuple[int, PlannedRow]]) -> None:
        left = []
        for index, row in steps:
            before = self._folder.rows.get(row.id)
            if before is not None and self._done(row, launch):  # a launch of this very run settled it
                self._progress.done(index, row, before)
            else:
                left.append(self._step(index, row))
        for step, measurement in self._executor.measure(left):
            self._keep(step.index, step.row, measurement)

    def _step(self, index: int, row: PlannedRow) -> Step:
        return Step(
            index=index,
            row=row,
            framework=self._backends[row.asked].framework,
            known=row.id in self._folder.rows,
            ceilings=self._workers(row).get(_name(row), {}),
        )

    def _keep(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        before = self._folder.rows.get(row.id)
        if before is not None:
            measurement = before.joined(measurement)
        self._folder.append(measurement)
        self._progress.done(index, row, measurement)

    def _done(self, row: PlannedRow, launch: int) -> bool:
        """Whether the folder has this launch of the row: a row that failed or is not timed has one."""
        found = self._folder.rows.get(row.id)
        return found is not None and (not found.timed or found.launches > launch)

    def _finish(self, outcome: str) -> None:
        self._header |= {"finished": _now(), "outcome": outcome}
        self._folder.write_header(self._header)

    def _stage(self, step: Step, stage: str) -> None:
        self._progress.row(step.index, step.row, stage)

    def _worker(self, step: Step, says: Mapping[str, Any]) -> None:
        self._workers(step.row)[_name(step.row)] = dict(says)
        self._folder.write_header(self._header)  # a run that is cut off is read by it too

    def _joined(self, hardware: str, node: Mapping[str, Any]) -> None:
        self._header["machines"][hardware]["nodes"].append(dict(node))
        self._folder.write_header(self._header)

    def _note(self, text: str) -> None:
        self._header.setdefault("notes", []).append(text)
        self._folder.write_header(self._header)
        self._progress.note(text)

    def _workers(self, row: PlannedRow) -> dict[str, Any]:
        """Those of the row's machine, in the header."""
        machine = self._header["machines"][row.hardware] if row.hardware else self._header
        found: dict[str, Any] = machine["workers"]
        return found


def _name(row: PlannedRow) -> str:
    """Of its backend's worker in the header."""
    return f"{row.backend} on {row.case.device}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
