"""Many runs in order: a line for the runs of each machine, and in it a series for each case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from mtbench.compare.machines import differences
from mtbench.compare.sides import Side
from mtbench.compare.test import LEAST_LAUNCHES, trimmed

__all__ = ["Level", "Line", "Series", "lines_of"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One run's time of a case."""

    ms: float
    """Geometric mean of the launches' medians, the slowest trimmed as in a comparison."""
    low_ms: float | None = None
    """95% interval by the launches; None where there are fewer than three."""
    high_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """A case over the runs of a line."""

    id: str
    backend: str
    clock: str
    """``device`` where every run that timed the case has it, else ``wall``."""
    levels: tuple[Level | None, ...]
    """An entry a run; None where the case has no time in it."""
    statuses: tuple[str, ...]
    """How it ended in each run; empty where the run does not have it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """The runs of one machine, in order."""

    sides: tuple[Side, ...]
    ordered_by: str
    """What the order is by, in words."""
    series: tuple[Series, ...]

    @property
    def machine(self) -> Mapping[str, str]:
        """What its runs have in common."""
        return {name: text for side in self.sides for name, text in side.machine.items()}


def lines_of(sides: Iterable[Side]) -> list[Line]:
    """The runs, each with those of its machine: a line's runs show no difference to any other of it."""
    groups: list[list[Side]] = []
    for side in sides:
        for group in groups:
            if not any(differences(side, other) for other in group):
                group.append(side)
                break
        else:
            groups.append([side])
    return [_line(group) for group in groups]


def _line(sides: Sequence[Side]) -> Line:
    ordered, by = _in_order(sides)
    names = dict.fromkeys(name for side in ordered for name in side.rows)
    series = [_series(name, ordered) for name in names]
    return Line(sides=tuple(ordered), ordered_by=by, series=tuple(s for s in series if any(s.levels)))


def _in_order(sides: Sequence[Side]) -> tuple[list[Side], str]:
    """By the commits' dates where all runs have one, the runs of a commit by their start; else by the start;
    else as they were given. Two kinds of dates in one order would mix what was made when with what was run
    when."""
    found: list[tuple[str, Callable[[Side], datetime | None]]] = [
        ("the commit's date", lambda side: side.committed),
        ("the run's start", lambda side: side.started),
    ]
    for words, date in found:
        dated = [(when, at) for at, side in enumerate(sides) if (when := date(side)) is not None]
        if len(dated) == len(sides):
            starts = [s.started for s in sides]
            order = sorted(dated, key=lambda one: (one[0], starts[one[1]] or one[0], one[1]))
            return [sides[at] for _, at in order], words
    return list(sides), "the order they were given in, as some say neither commit nor start"


def _series(name: str, sides: Sequence[Side]) -> Series:
    rows = [side.rows.get(name) for side in sides]
    timed = [row for row in rows if row is not None and row.wall_ms]
    clock = "device" if timed and all(row.device_ms for row in timed) else "wall"
    return Series(
        id=name,
        backend=next((row.backend for row in rows if row is not None), ""),
        clock=clock,
        levels=tuple(
            _level(row.launches_ms(clock)) if row is not None and row.wall_ms else None for row in rows
        ),
        statuses=tuple("" if row is None else row.status for row in rows),
    )


def _level(launches_ms: Sequence[float]) -> Level:
    """The trimmed mean of the logarithms, with the interval of Yuen's variance (`mtbench.compare.test`)."""
    mean, squares, left = trimmed(np.log(np.asarray(launches_ms)))
    if len(launches_ms) < LEAST_LAUNCHES:
        return Level(ms=math.exp(mean))
    from scipy import special

    reach = float(special.stdtrit(left - 1, 0.975)) * math.sqrt(squares / (left * (left - 1)))
    return Level(ms=math.exp(mean), low_ms=math.exp(mean - reach), high_ms=math.exp(mean + reach))
