"""What is said of each case, and of the whole."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from mtbench.compare.cases import Matched, Unjudged, match
from mtbench.compare.machines import alike, differences, refuse_unlike_machines, software_differences
from mtbench.compare.sides import Side
from mtbench.compare.test import LEAST_LAUNCHES, Tested, moderated_test, trimmed
from mtbench.errors import BadInput

__all__ = [
    "EFFECT_PERCENT",
    "FALSE_DISCOVERY_RATE",
    "RECOMMENDED_LAUNCHES",
    "VERDICTS",
    "Comparison",
    "Judged",
    "Verdict",
    "compare_sides",
    "verdict_of",
]

Verdict = Literal["slower", "faster", "unsure", "same"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""In the order they are shown."""

EFFECT_PERCENT = 3.0
"""The smallest effect that matters, unless told."""
FALSE_DISCOVERY_RATE = 0.05
"""The part of all slower and faster that may be neither."""
RECOMMENDED_LAUNCHES = 8
"""Launches a side to gate with; `docs/comparing.md` has what they find."""

NOTHING_SLOWER, SOMETHING_SLOWER, ALL_UNSURE = 0, 1, 3


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A case that was timed on both sides, and the verdict."""

    id: str
    backend: str
    clock: str
    verdict: Verdict
    reason: str
    """Why it is unsure, in words; empty where the figures say it."""
    a_ms: float
    """Geometric mean of the launches' medians, the same launches trimmed as in the test."""
    b_ms: float
    launches_a: int
    launches_b: int
    ratio: float
    """B over A: over 1 is slower."""
    ratio_low: float | None = None
    """95% interval of the ratio as measured; None where nothing was tested."""
    ratio_high: float | None = None
    standard_error: float = math.inf
    """Of the logarithm of the ratio."""
    degrees_of_freedom: float = 0.0
    p: float | None = None
    q: float | None = None
    """p adjusted for the number of cases: significant where at most `FALSE_DISCOVERY_RATE`."""

    @property
    def tested(self) -> bool:
        """Whether there were launches enough."""
        return self.q is not None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate (B) against a baseline (A)."""

    a: Side
    b: Side
    effect_percent: float
    judged: tuple[Judged, ...]
    others: tuple[Unjudged, ...]
    drift_ratio: float = 1.0
    """B over A that most backends share: the machine's, kept out of every verdict."""
    widened: float = 1.0
    """What standard errors were multiplied by, since cases scatter more between two runs than within one."""
    by_kind: Mapping[str, Comparison] = field(default_factory=dict)
    """Of runs of several kinds of machine the comparison on each, which is where the verdicts come from: two
    kinds share neither scatter nor drift. Drift and widening above are then the worst of theirs."""

    @property
    def counts(self) -> dict[str, int]:
        """Cases by verdict; ``broken`` counts those that worked in A and fail in B."""
        found = Counter[str](case.verdict for case in self.judged)
        return {**{verdict: found[verdict] for verdict in VERDICTS}, "broken": len(self.broken)}

    @property
    def broken(self) -> list[Unjudged]:
        """What worked in A and fails in B."""
        return [case for case in self.others if case.broken]

    @property
    def exit_code(self) -> int:
        """1 where something is slower or broken, 3 where nothing but `unsure` can be said, else 0."""
        if self.counts["slower"] or self.broken:
            return SOMETHING_SLOWER
        if all(case.verdict == "unsure" for case in self.judged):
            return ALL_UNSURE
        return NOTHING_SLOWER

    @property
    def summary(self) -> str:
        """One line."""
        counts = self.counts
        parts = [f"{counts[name]} {name}" for name in (*VERDICTS, "broken") if counts[name]]
        unjudged = len(self.others) - counts["broken"]
        words = ", ".join(parts) or "no case timed on both sides"
        rest = f"; {unjudged} not timed on both sides" if unjudged else ""
        return f"{words}{rest} (an effect under {self.effect_percent:g}% does not matter)"

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know beside the cases, a line each."""
        found = [f"{name}: {text}" for name, side in (("A", self.a), ("B", self.b)) for text in side.remarks]
        if unlike := differences(self.a, self.b):
            found.append(f"the machines differ: {'; '.join(unlike)}")
        if software := software_differences(self.a, self.b):
            found.append(f"A and B differ in: {'; '.join(software)}")
        few = [case for case in self.judged if min(case.launches_a, case.launches_b) < LEAST_LAUNCHES]
        if few:
            count = "every case" if len(few) == len(self.judged) else f"{len(few)} cases"
            found.append(
                f"{count} unsure for want of launches: {LEAST_LAUNCHES} a side are the least, "
                f"{RECOMMENDED_LAUNCHES} find a lone change (mtbench run --launches {RECOMMENDED_LAUNCHES})"
            )
        for kind, comparison in (self.by_kind or {"": self}).items():
            if abs(comparison.drift_ratio - 1) >= 0.001:
                longer = "longer" if comparison.drift_ratio > 1 else "less"
                on = f" on {kind}" if kind else ""
                found.append(
                    f"most backends took {100 * abs(comparison.drift_ratio - 1):.1f}% {longer} in B{on}: "
                    "taken for the machine's drift and kept out of the verdicts; if it is the code, run both "
                    "again in turns"
                )
        return found


def compare_sides(
    a: Side, b: Side, *, effect_percent: float = EFFECT_PERCENT, across_machines: bool = False
) -> Comparison:
    """Match, test and judge.

    Args:
        a: the baseline.
        b: the candidate.
        effect_percent: the smallest effect that matters, %.
        across_machines: whether to compare though the machines differ.

    Raises:
        BadInput: the machines differ, no case is on both sides, or the effect is out of range.
    """
    if not 0 < effect_percent < 100:
        raise BadInput(f"--effect {effect_percent:g}: a percentage above 0 and under 100")
    a, b = alike(a, b)
    if not across_machines:
        refuse_unlike_machines(a, b)
    matched, others = match(a, b)
    if a.parts and b.parts:
        return _by_kind(a, b, others, effect_percent)
    effect_log = math.log1p(effect_percent / 100)
    enough = [case for case in matched if min(len(case.a_ms), len(case.b_ms)) >= LEAST_LAUNCHES]
    tested = None
    if enough:
        tested = moderated_test(
            [case.a_ms for case in enough],
            [case.b_ms for case in enough],
            [case.backend for case in enough],
            effect_log=effect_log,
        )
    index = {case.id: number for number, case in enumerate(enough)}
    judged = []
    for case in matched:
        if tested is None or case.id not in index:
            judged.append(_untested(case))
        else:
            judged.append(_judged(case, tested, index[case.id], effect_log))
    return Comparison(
        a=a,
        b=b,
        effect_percent=effect_percent,
        judged=tuple(judged),
        others=tuple(others),
        drift_ratio=1.0 if tested is None else math.exp(tested.drift),
        widened=1.0 if tested is None else tested.widened,
    )


def _by_kind(a: Side, b: Side, others: Sequence[Unjudged], effect_percent: float) -> Comparison:
    """Runs of several kinds of machine, each kind against its like."""
    there = {part.machine["kind"]: part for part in b.parts}
    found: dict[str, Comparison] = {}
    for part in a.parts:
        kind = part.machine["kind"]
        other = there.get(kind)
        if other is not None and not part.rows.keys().isdisjoint(other.rows):
            found[kind] = compare_sides(part, other, effect_percent=effect_percent, across_machines=True)
    return Comparison(
        a=a,
        b=b,
        effect_percent=effect_percent,
        judged=tuple(
            replace(case, id=f"{case.id}@{kind}")
            for kind, comparison in found.items()
            for case in comparison.judged
        ),
        others=tuple(others),
        drift_ratio=max((c.drift_ratio for c in found.values()), key=lambda ratio: abs(math.log(ratio))),
        widened=max(comparison.widened for comparison in found.values()),
        by_kind=found,
    )


def _untested(case: Matched) -> Judged:
    a_ms, b_ms = _center_ms(case.a_ms), _center_ms(case.b_ms)
    counts = f"{len(case.a_ms)} in A, {len(case.b_ms)} in B"
    return Judged(
        id=case.id,
        backend=case.backend,
        clock=case.clock,
        verdict="unsure",
        reason=f"too few launches ({counts})",
        a_ms=a_ms,
        b_ms=b_ms,
        launches_a=len(case.a_ms),
        launches_b=len(case.b_ms),
        ratio=b_ms / a_ms,
    )


def _judged(case: Matched, tested: Tested, index: int, effect_log: float) -> Judged:
    from scipy import special

    log_ratio = float(tested.log_ratio[index])
    reach = float(special.stdtrit(tested.degrees_of_freedom[index], 0.975) * tested.standard_error[index])
    verdict, reason = verdict_of(log_ratio, tested.drift, float(tested.q[index]), effect_log)
    a_ms = _center_ms(case.a_ms)
    return Judged(
        id=case.id,
        backend=case.backend,
        clock=case.clock,
        verdict=verdict,
        reason=reason,
        a_ms=a_ms,
        b_ms=a_ms * math.exp(log_ratio),
        launches_a=len(case.a_ms),
        launches_b=len(case.b_ms),
        ratio=math.exp(log_ratio),
        ratio_low=math.exp(log_ratio - reach),
        ratio_high=math.exp(log_ratio + reach),
        standard_error=float(tested.standard_error[index]),
        degrees_of_freedom=float(tested.degrees_of_freedom[index]),
        p=float(tested.p[index]),
        q=float(tested.q[index]),
    )


def verdict_of(log_ratio: float, drift: float, q: float, effect_log: float) -> tuple[Verdict, str]:
    """The verdict of one case, and the reason where it is not plain.

    The drift is kept out and never counted in favour: slower (or faster) has to be beyond the effect both as
    measured and without the drift, and significant; same has to be within it both ways.
    """
    without = log_ratio - drift
    significant = q <= FALSE_DISCOVERY_RATE
    if significant and min(without, log_ratio) > effect_log:
        return "slower", ""
    if significant and max(without, log_ratio) < -effect_log:
        return "faster", ""
    within = abs(without) <= effect_log
    if within and abs(log_ratio) <= effect_log:
        return "same", ""
    if within:
        return "unsure", "no more than most backends"
    if abs(log_ratio) <= effect_log:
        return "unsure", "only against the drift of most backends"
    return "unsure", "launches and runs scatter as much"


def _center_ms(launches_ms: Sequence[float]) -> float:
    return math.exp(trimmed(np.log(np.asarray(launches_ms)))[0])
