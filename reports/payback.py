"""What compiling costs, and after how many calls a faster row has paid it back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtbench.measure.statistics import Samples
from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS

from .resampling import between, log_medians
from .settings import Context, Names, Shape, samples

__all__ = ["Payback", "paybacks"]

EAGER = "torch-eager"
"""Compiles nothing: what a user has who compiles nothing either."""
WORTH_S = 0.1
"""A row that is ready later by less has not compiled anything that a user would notice."""


@dataclass(frozen=True, kw_only=True)
class Payback:
    """A row that compiles, against the fastest row of eager torch in its case; where that has none, against
    the fastest of all that are ready `WORTH_S` sooner."""

    row: Measurement
    attention: str
    setup_s: float
    """Build and first call, less one call: what passes before its calls are as fast as they get."""
    other: Measurement
    """What it is held against."""
    other_setup_s: float
    saved_ms: float
    """A call, by the wall clock's medians; below 0 where it is the slower one."""
    calls: float
    """After how many both have taken equally long; infinite where it never pays."""
    low: float
    """Of its 95% interval, by the samples of the calls: the setups were measured once."""
    high: float
    from_cache: int
    """Of its programs, those that a cache on disk had: with any, its setup is not that of compiling."""

    @property
    def pays(self) -> bool:
        """Whether it is ever ahead."""
        return math.isfinite(self.calls)


@dataclass(frozen=True)
class _Ready:
    """A ranked row, and the seconds before its calls are as fast as they get."""

    row: Measurement
    samples: Samples
    setup_s: float


def _ready(row: Measurement) -> _Ready | None:
    found = samples(row, "wall")
    if found is None or row.first_call_s is None:
        return None
    return _Ready(row, found, max(0.0, (row.build_s or 0.0) + row.first_call_s - found.median / 1e3))


def paybacks(rows: Sequence[Measurement]) -> dict[tuple[Context, Shape], list[Payback]]:
    """By context and shape, at the largest length of each attention: the rows that compile, those of an
    attention together and the fastest first. By the wall clock, which is that of a user who waits."""
    names = Names(rows)
    settings: dict[tuple[Context, Shape], dict[tuple[int, str], list[_Ready]]] = {}
    for row in {row.id: row for row in rows}.values():
        if (ready := _ready(row)) is not None:
            kinds = settings.setdefault((Context.of(row), Shape.of(row.case)), {})
            kind = (ATTENTIONS.index(row.case.spec.kind), names(row.case.spec))
            kinds.setdefault(kind, []).append(ready)
    found = {
        setting: [
            payback
            for (_, attention), members in sorted(kinds.items(), key=lambda item: item[0])
            for payback in _of_one_case(_at_the_largest(members), attention)
        ]
        for setting, kinds in settings.items()
    }
    return {setting: told for setting, told in found.items() if told}


def _at_the_largest(members: Sequence[_Ready]) -> list[_Ready]:
    """Those of the largest length, each with the longest setup of its backend and form at any length: where
    one program serves several lengths, the first to be measured paid for all."""
    longest: dict[tuple[str, str], float] = {}
    for one in members:
        line = (one.row.backend, one.row.form)
        longest[line] = max(longest.get(line, 0.0), one.setup_s)
    largest = max(one.row.case.seq_len for one in members)
    return [
        replace(one, setup_s=longest[one.row.backend, one.row.form])
        for one in members
        if one.row.case.seq_len == largest
    ]


def _of_one_case(rows: Sequence[_Ready], attention: str) -> Iterable[Payback]:
    ordered = sorted(rows, key=lambda one: (one.samples.median, one.row.id))
    eager = next((one for one in ordered if one.row.backend == EAGER), None)
    for one in ordered:
        sooner = (other for other in ordered if other.setup_s + WORTH_S <= one.setup_s)
        other = eager or next(sooner, None)
        if other and one.row.backend != EAGER and other.setup_s + WORTH_S <= one.setup_s:
            yield _payback(one, other, attention)


def _payback(one: _Ready, other: _Ready, attention: str) -> Payback:
    # [1 + resamples], ms a call
    saved = np.exp(log_medians(other.samples, 1)) - np.exp(log_medians(one.samples, 2))
    later_ms = (one.setup_s - other.setup_s) * 1e3
    calls = np.where(saved > 0, later_ms / np.where(saved > 0, saved, 1.0), math.inf)
    low, high = between(calls[1:])
    return Payback(
        row=one.row,
        attention=attention,
        setup_s=one.setup_s,
        other=other.row,
        other_setup_s=other.setup_s,
        saved_ms=float(saved[0]),
        calls=float(calls[0]),
        low=low,
        high=high,
        from_cache=one.row.compiled.get("from_cache", 0),
    )
