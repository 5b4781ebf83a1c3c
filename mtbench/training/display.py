"""What the terminal shows of a training run: a bar a job that is running, and plain lines where there is
none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mtbench.display import time_left
from mtbench.training.results import EpochRow
from mtbench.training.runner import Progress
from mtbench.training.settings import Job

__all__ = ["show_training"]

LINES_A_JOB = 5
"""Lines that a job has where there is no terminal, beside its last."""


@contextlib.contextmanager
def show_training() -> Iterator[Progress]:
    """A live display on a terminal, and plain lines elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
    )
    with bar:
        yield _Live(bar, console)


class _Counted(Progress):
    """Knows how many epochs there are, and estimates the time that is left from those of this call."""

    def __init__(self) -> None:
        self.jobs: Sequence[Job] = ()
        self.done = self.epochs = self._before = self.jobs_done = 0
        self._began = time.monotonic()

    def begin(self, jobs: Sequence[Job], epochs: int, before: int) -> None:
        self.jobs, self.epochs, self.done, self._before = jobs, epochs, before, before

    def epoch(self, job: Job, row: EpochRow) -> None:
        # One that was told before the run was cut off, and is trained again from a checkpoint, counts once.
        self.done = min(self.done + 1, self.epochs)

    def ended(self, job: Job, status: str, reason: str) -> None:
        self.jobs_done += 1

    @property
    def left(self) -> str:
        """An estimate from the epochs so far."""
        trained = self.done - self._before
        if trained < 3:
            return "about ? left"
        seconds = (time.monotonic() - self._began) / trained * (self.epochs - self.done)
        return time_left(seconds)


def _told(row: EpochRow) -> str:
    held_out = ""
    if row.held_out_loss is not None:
        held_out = f", held out {row.held_out_loss:.4g}"
    return f"loss {row.mean_loss:.4g}{held_out}, {row.total_s:.3g} s an epoch"


class _Lines(_Counted):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def epoch(self, job: Job, row: EpochRow) -> None:
        super().epoch(job, row)
        epochs = job.schedule.epochs
        if (row.epoch + 1) * LINES_A_JOB // epochs > row.epoch * LINES_A_JOB // epochs:
            where = f"epoch {row.epoch + 1} of {epochs}"
            self._print(f"{job.variant}, seed {job.seed}: {where}, {_told(row)} ({self.left})")

    def ended(self, job: Job, status: str, reason: str) -> None:
        super().ended(job, status, reason)
        told = f"{status}: {reason}" if reason else status
        self._print(f"[{self.jobs_done}/{len(self.jobs)}] {job.variant}, seed {job.seed}: {told}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class _Live(_Counted):
    def __init__(self, bar: Bar, console: Console) -> None:
        super().__init__()
        self._bar, self._console = bar, console
        self._whole = bar.add_task("all", total=None, told="")
        self._rows: dict[str, TaskID] = {}

    def begin(self, jobs: Sequence[Job], epochs: int, before: int) -> None:
        super().begin(jobs, epochs, before)
        self._bar.update(self._whole, total=epochs, completed=before)

    def epoch(self, job: Job, row: EpochRow) -> None:
        super().epoch(job, row)
        if job.id not in self._rows:
            name = f"{job.variant}, seed {job.seed}"
            self._rows[job.id] = self._bar.add_task(name, total=job.schedule.epochs, told="")
        self._bar.update(self._rows[job.id], completed=row.epoch + 1, told=_told(row))
        self._bar.update(self._whole, completed=self.done, told=self.left)

    def ended(self, job: Job, status: str, reason: str) -> None:
        super().ended(job, status, reason)
        if job.id in self._rows:
            self._bar.remove_task(self._rows.pop(job.id))
        told = f"{status}: {reason}" if reason else status
        style = "green" if status == "done" else "yellow" if status == "cut off" else "red"
        self._console.print(f"{job.variant}, seed {job.seed}: {told}", style=style, markup=False)
