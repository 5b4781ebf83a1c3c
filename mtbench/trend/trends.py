"""What changed over many runs: the steps of every case, at which run, and what else differs there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtbench.compare.machines import software_differences
from mtbench.compare.sides import Side, read_side
from mtbench.compare.test import LEAST_VOICES, shared_shift
from mtbench.compare.verdicts import EFFECT_PERCENT
from mtbench.errors import BadInput
from mtbench.trend.changes import LEAST_RUNS, find_changes
from mtbench.trend.lines import Line, Series, lines_of

__all__ = ["Change", "Trend", "read_runs", "trend_of"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A step of one case."""

    series: Series
    at: int
    """The first run of the new level, among those of the line."""
    since: int
    """The run before it that timed the case: between the two lies the change."""
    before_ms: float
    after_ms: float
    ratio: float
    """After over before: over 1 is slower."""
    ratio_low: float
    """95% interval."""
    ratio_high: float

    @property
    def slower(self) -> bool:
        """Whether it takes longer since."""
        return self.ratio > 1


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One line of runs, and its changes."""

    line: Line
    effect_percent: float
    changes: tuple[Change, ...]
    """By run, and within one what changed most first."""

    @property
    def runs(self) -> int:
        """How many."""
        return len(self.line.sides)

    def at(self, run: int) -> list[Change]:
        """The changes at that run."""
        return [change for change in self.changes if change.at == run]

    def of(self, series: Series) -> list[Change]:
        """The changes of that case."""
        return [change for change in self.changes if change.series is series]

    def remarks_at(self, run: int) -> list[str]:
        """What else differs at that run: the software, and whether most backends share the step."""
        found = []
        since = min((change.since for change in self.at(run)), default=run - 1)
        if software := software_differences(self.line.sides[since], self.line.sides[run]):
            found.append(f"{'; '.join(software)}")
        shift = self._shared(since, run)
        if abs(shift) >= math.log1p(self.effect_percent / 100):
            longer = "longer" if shift > 0 else "less"
            found.append(
                f"most backends took {100 * abs(math.expm1(shift)):.0f}% {longer} from this run on: "
                "it may be the machine and not the code"
            )
        return found

    def _shared(self, since: int, run: int) -> float:
        """The step that most backends share, each by the median of its cases, in logarithms."""
        steps: dict[str, list[float]] = {}
        for series in self.line.series:
            before, after = series.levels[since], series.levels[run]
            if before is not None and after is not None:
                steps.setdefault(series.backend, []).append(math.log(after.ms / before.ms))
        return shared_shift([float(np.median(x)) for x in steps.values() if len(x) >= LEAST_VOICES])

    @property
    def searched(self) -> int:
        """Cases that runs enough have timed."""
        times = [sum(level is not None for level in series.levels) for series in self.line.series]
        return sum(count >= LEAST_RUNS for count in times)

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know of the line, each a sentence without its full stop."""
        found = [f"{side.path.name}: {text}" for side in self.line.sides for text in side.remarks]
        cases = len(self.line.series)
        if self.searched < cases:
            some = f"{self.searched or 'none'} of {cases} cases could be searched for changes"
            found.append(f"{some}: that takes {LEAST_RUNS} runs with a time")
        return found

    @property
    def summary(self) -> str:
        """One line."""
        cases, changed = len(self.line.series), {change.series.id for change in self.changes}
        slower = sum(change.slower for change in self.changes)
        if not self.searched:
            found = f"too few to tell a change in any of {cases}"
        elif not self.changes:
            found = f"no change in any of {cases}"
        else:
            found = f"{slower} slower, {len(self.changes) - slower} faster in {len(changed)} of {cases}"
        return (
            f"{self.runs} run{'' if self.runs == 1 else 's'} of one machine: {found} "
            f"case{'' if cases == 1 else 's'} (an effect under {self.effect_percent:g}% does not matter)"
        )


def read_runs(paths: Sequence[Path | str]) -> list[Side]:
    """The runs, each once; one of several kinds of machine is a run of each.

    Raises:
        BadInput: one cannot be read, or there are fewer than two.
    """
    once: dict[Path, Path | str] = {}
    for path in paths:
        once.setdefault(Path(path).resolve(), path)
    if len(once) < 2:
        raise BadInput(f"trend {' '.join(map(str, once.values()))}: one run is no trend, give two or more")
    return [part for path in once.values() for part in read_side(path).of_one_machine]


def trend_of(sides: Sequence[Side], *, effect_percent: float = EFFECT_PERCENT) -> list[Trend]:
    """A trend for each machine.

    Raises:
        BadInput: no case has a time, or the effect is out of range.
    """
    if not 0 < effect_percent < 100:
        raise BadInput(f"--effect {effect_percent:g}: a percentage above 0 and under 100")
    found = [_trend(line, effect_percent) for line in lines_of(sides)]
    if not any(trend.line.series for trend in found):
        raise BadInput(f"no case has a time in any of the {len(sides)} runs: there is nothing to draw")
    return found


def _trend(line: Line, effect_percent: float) -> Trend:
    timed = [[at for at, level in enumerate(series.levels) if level is not None] for series in line.series]
    logs = [
        np.log([level.ms for level in series.levels if level is not None]).astype(np.float64)
        for series in line.series
    ]
    steps = find_changes(logs, effect_log=math.log1p(effect_percent / 100))
    changes = [
        Change(
            series=series,
            at=runs[step.at],
            since=runs[step.at - 1],
            before_ms=math.exp(step.log_before),
            after_ms=math.exp(step.log_after),
            ratio=math.exp(step.log_ratio),
            ratio_low=math.exp(step.log_ratio - step.reach),
            ratio_high=math.exp(step.log_ratio + step.reach),
        )
        for series, runs, found in zip(line.series, timed, steps, strict=True)
        for step in found
    ]
    ordered = sorted(changes, key=lambda change: (change.at, -abs(math.log(change.ratio))))
    return Trend(line=line, effect_percent=effect_percent, changes=tuple(ordered))
