"""What the terminal shows: a live display of a run, plain lines where there is no terminal, and tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from mtbench.results import FAILURES, Measurement
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.runner import Progress

__all__ = ["print_support", "show_progress", "time_left"]

WIDE = 120
"""Columns of a terminal from which on there is room for a bar, too."""
COLOURS = {"ok": "green", "unsupported": "dim", "unavailable": "dim", "oom": "yellow"}


@contextlib.contextmanager
def show_progress() -> Iterator[Progress]:
    """A live display on a terminal, and one plain line a row elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console)
        return
    bar = Bar(
        SpinnerColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *([BarColumn(bar_width=24)] if console.width >= WIDE else []),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}"),
        _Clipped("{task.description}", table_column=Column()),
        console=console,
    )
    with bar:
        yield _Live(bar, console)


class _Clipped(TextColumn):
    """The one column that gives way where the terminal is narrow: it may wrap, and its text does not."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def time_left(seconds: float) -> str:
    """An estimate in words.

    >>> time_left(89), time_left(90)
    ('about 89 s left', 'about 2 min left')
    """
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


class _Counted(Progress):
    """Knows how many rows there are, and estimates the time that is left."""

    def __init__(self) -> None:
        self.rows: list[PlannedRow] = []
        self._undone: set[int] = set()
        self._began = time.monotonic()
        self._spent: dict[str, list[float]] = {}
        self._row_began = self._began

    def begin(self, steps: Sequence[PlannedRow]) -> None:
        self.rows = list(steps)
        self._undone = set(range(len(self.rows)))

    @property
    def count(self) -> int:
        """Steps that are done."""
        return len(self.rows) - len(self._undone)

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        self._undone.discard(index)
        now = time.monotonic()
        if row.decided is None:
            self._spent.setdefault(row.backend, []).append(now - self._row_began)
        self._row_began = now

    @property
    def left(self) -> str:
        """An estimate from the mean row of each backend so far, or of all where it has none: by the time from
        one that is done to the next, whichever machines measure meanwhile."""
        every = [seconds for spent in self._spent.values() for seconds in spent]
        if len(every) < 3:
            return "about ? left"
        overall = sum(every) / len(every)
        seconds = 0.0
        for row in (self.rows[index] for index in self._undone):
            if row.decided is None:
                spent = self._spent.get(row.backend)
                seconds += sum(spent) / len(spent) if spent else overall
        return time_left(seconds)


class _Lines(_Counted):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        super().done(index, row, measurement)
        text = f"[{self.count}/{len(self.rows)}] {_line(measurement)} ({self.left})"
        self._console.print(text, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class _Live(_Counted):
    def __init__(self, bar: Bar, console: Console) -> None:
        super().__init__()
        self._bar, self._console = bar, console
        self._task = bar.add_task("planning", total=None, left="")

    def begin(self, steps: Sequence[PlannedRow]) -> None:
        super().begin(steps)
        self._bar.update(self._task, total=len(self.rows))

    def row(self, index: int, row: PlannedRow, stage: str) -> None:
        self._bar.update(
            self._task, description=f"{row.backend} {row.form} {_size(row)}: {stage}", left=self.left
        )

    def done(self, index: int, row: PlannedRow, measurement: Measurement) -> None:
        super().done(index, row, measurement)
        self._bar.update(self._task, completed=self.count, left=self.left)
        if measurement.status in FAILURES or measurement.status == "oom":
            style = COLOURS.get(measurement.status, "red")
            self._console.print(_line(measurement), style=style, markup=False)

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)


def _size(row: PlannedRow | Measurement) -> str:
    case = row.case
    return (
        f"{case.spec.kind} b{case.batch} h{case.heads} n{case.seq_len} d{case.head_dim} "
        f"{case.dtype} {case.device} {case.mode}" + (f" on {case.world_size}" if case.world_size > 1 else "")
    )


def _line(row: Measurement) -> str:
    time_text = ""
    if row.wall_ms is not None:
        clock = row.device_ms or row.wall_ms
        name = "device" if row.device_ms is not None else "wall"
        time_text = f" {clock.median:.4g} ms ({name})"
    reason = f": {row.reason}" if row.reason else ""
    on = f" on {row.hardware}" if row.hardware else ""
    return f"{row.backend} {row.form} {_size(row)}{on}  {row.status}{time_text}{reason}"


def print_support(support: list[dict[str, Any]]) -> None:
    """The support table on stdout."""
    console = Console(highlight=False)
    table = Table(title="Forms of each attention", title_justify="left")
    for heading in ("backend", "framework", "softmax", "linear", "momentum", "cpu", "cuda"):
        table.add_column(heading, overflow="fold")
    for row in support:
        here = [Text(row["unavailable"][device] or "yes") for device in ("cpu", "cuda")]
        forms = [Text(", ".join(row["forms"][kind]) or "-") for kind in ("softmax", "linear", "momentum")]
        table.add_row(Text(row["backend"]), Text(row["framework"]), *forms, *here)
    console.print(table)
    limits = Table(title="Limits", title_justify="left")
    for heading in ("backend", "", "not done", "why"):
        limits.add_column(heading, overflow="fold")
    for row in support:
        for limit in row["limits"]:
            words = (row["backend"], limit["kind"], limit["what"], limit["reason"])
            limits.add_row(*map(Text, words))
    console.print(limits)
    console.print("notimpl: we could; notyet: upstream must first; never: it makes no sense", style="dim")
    _print_caveats(console, support)


def _print_caveats(console: Console, support: list[dict[str, Any]]) -> None:
    table = Table(title="Caveats", title_justify="left")
    for heading in ("backend", "what to know", "where and why"):
        table.add_column(heading, overflow="fold")
    for row in support:
        for caveat in row.get("caveats", ()):
            table.add_row(*map(Text, (row["backend"], caveat["what"], caveat["reason"])))
    if table.row_count:
        console.print(table)
