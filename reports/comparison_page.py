"""The page of two runs and more beside one another, the first of them the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mtbench.compare.beside import Pair, letter
from mtbench.compare.cases import ABSENT, Unjudged
from mtbench.compare.sides import Side
from mtbench.compare.verdicts import VERDICTS, Comparison, Judged, Verdict

from .digits import with_interval
from .marks import time_text
from .rendering import styles, template
from .runs import runs_table
from .strips import Strip, forest, strips

__all__ = ["comparison_html"]

MOST_FIGURES = 60
"""Regressions that are drawn, of one pair; the table has them all."""
MOST_WIDE = math.log(2.0)
"""The logarithm of the ratio at which the axis of a table's intervals ends, at the most: one case that is a
hundred times as slow does not flatten the rest."""

HEADINGS: dict[Verdict, tuple[str, str]] = {
    "slower": ("Slower", "beyond the smallest effect that matters, and significant"),
    "faster": ("Faster", "beyond the smallest effect that matters, and significant"),
    "unsure": ("Unsure", "the launches cannot tell"),
    "same": ("Same", "within the smallest effect that matters"),
}


def comparison_html(sides: Sequence[Side], pairs: Sequence[Pair]) -> str:
    """The page's text.

    Args:
        sides: the runs, the baseline first.
        pairs: each of the others against it, as `mtbench.compare.beside.set_beside` gives them.
    """
    names = [letter(number) for number in range(len(sides))]
    return template("comparison.html.j2").render(
        style=styles("report.css", "several.css"),
        names=names,
        sides=sides,
        runs=runs_table(names, sides),
        pairs=[_pair(pair, names) for pair in pairs],
        effect=pairs[0].comparison.effect_percent,
        abreast=_abreast(sides, pairs) if len(sides) > 2 else [],
    )


def _pair(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    """What the template says of one pair."""
    comparison = pair.comparison
    shown = _Shown(comparison, pair.name)
    groups: list[tuple[str, str, str, list[dict[str, Any]]]] = []
    if pair.judged:
        for verdict in VERDICTS:
            cases = _by_size([case for case in comparison.judged if case.verdict == verdict])
            groups.append((verdict, *HEADINGS[verdict], [shown.row(case) for case in cases]))
    else:
        cases = sorted(comparison.judged, key=lambda case: -case.ratio)
        groups.append(("", "", "", [shown.row(case) for case in cases]))
    slower = _by_size([case for case in comparison.judged if case.verdict == "slower"])
    others = comparison.others
    return {
        "name": pair.name,
        "pair": pair,
        "comparison": comparison,
        "counts": comparison.counts,
        "remarks": [_renamed(remark, pair.name) for remark in pair.remarks],
        "groups": groups,
        "longer": sum(case.ratio > 1 for case in comparison.judged),
        "figures": [shown.figure(case) for case in slower[:MOST_FIGURES]] if pair.judged else [],
        "undrawn": max(0, len(slower) - MOST_FIGURES),
        "broken": [case for case in others if case.broken],
        "changed": [case for case in others if case.changed and not case.broken and _in_both(case)],
        "only": [
            (names[0], [case for case in others if case.b == ABSENT]),
            (pair.name, [case for case in others if case.a == ABSENT]),
        ],
        "untimed": [case for case in others if not case.changed],
        "ends": (math.exp(-shown.axis), math.exp(shown.axis)),
    }


def _by_size(cases: Sequence[Judged]) -> list[Judged]:
    return sorted(cases, key=lambda case: -abs(math.log(case.ratio)))


def _in_both(case: Unjudged) -> bool:
    return ABSENT not in (case.a, case.b)


def _renamed(remark: str, name: str) -> str:
    """A comparison calls its two sides A and B; on the page the second may be another letter.

    >>> _renamed("B: the run is not complete", "C"), _renamed("A and B differ in: x", "C")
    ('C: the run is not complete', 'A and C differ in: x')
    """
    for words in ("B: ", "A and B differ", "longer in B:", "less in B:"):
        if remark.startswith(words) or f" {words}" in remark:
            return remark.replace(words, words.replace("B", name), 1)
    return remark


class _Shown:
    """The cases of a comparison as text and as figures."""

    def __init__(self, comparison: Comparison, name: str) -> None:
        self.comparison, self.name = comparison, name
        far = [
            abs(math.log(value))
            for case in comparison.judged
            for value in (case.ratio, case.ratio_low, case.ratio_high)
            if value is not None
        ]
        least = 2 * math.log1p(comparison.effect_percent / 100)
        self.axis = min(max([*far, least]), max(MOST_WIDE, least))

    def row(self, case: Judged) -> dict[str, Any]:
        """A line of a table."""
        reach = _reach(case)
        ratio, interval = f"{case.ratio:.3g}", ""
        if case.ratio_low is not None and case.ratio_high is not None:
            ratio, ends = with_interval(case.ratio, case.ratio_low, case.ratio_high)
            interval = ends.replace(", ", " to ")
        return {
            "case": case,
            "a": _spread_text(case.a_ms, reach),
            "b": _spread_text(case.b_ms, reach),
            "ratio": ratio,
            "interval": interval,
            "forest": forest(
                case.ratio,
                _interval(case),
                widest_log=self.axis,
                effect_percent=self.comparison.effect_percent,
            ),
            "launches": f"{case.launches_a}"
            if case.launches_a == case.launches_b
            else f"{case.launches_a} and {case.launches_b}",
        }

    def figure(self, case: Judged) -> dict[str, Any]:
        """A regression, drawn."""
        interval = _interval(case)
        a, b = (
            Strip(
                name=f"{name} ({side.path.name})",
                center_ms=center,
                medians_ms=side.rows[case.id].launches_ms(case.clock),
                samples_ms=side.rows[case.id].samples(case.clock),
            )
            for name, side, center in (
                ("A", self.comparison.a, case.a_ms),
                (self.name, self.comparison.b, case.b_ms),
            )
        )
        drawn = strips(
            a,
            b,
            None if interval is None else (case.a_ms * interval[0], case.a_ms * interval[1]),
            effect_percent=self.comparison.effect_percent,
            clock=case.clock,
        )
        return {**self.row(case), "svg": drawn}


def _reach(case: Judged) -> float:
    """How far the logarithm of the ratio is uncertain; infinite where nothing was tested."""
    return math.inf if case.ratio_high is None else math.log(case.ratio_high / case.ratio)


def _spread_text(ms: float, reach: float) -> str:
    """A side's time to the digits that the ratio allows: each side is at least as certain."""
    if math.isinf(reach):
        return time_text(ms, None, None)
    return time_text(ms, ms * math.exp(-reach), ms * math.exp(reach))


def _interval(case: Judged) -> tuple[float, float] | None:
    return None if case.ratio_low is None or case.ratio_high is None else (case.ratio_low, case.ratio_high)


def _abreast(sides: Sequence[Side], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """All cases with a column a run: the time, and what became of it against the baseline's. Where not all
    runs have the device clock a case is compared by one clock here and by another there, and says which."""
    judged = [{case.id: case for case in pair.comparison.judged} for pair in pairs]
    others = [{case.id: case for case in pair.comparison.others} for pair in pairs]
    names = dict.fromkeys(
        [*(name for found in judged for name in found), *(name for found in others for name in found)]
    )
    rows = []
    for name in names:
        known = [found[name] for found in judged if name in found]
        mixed = len({case.clock for case in known}) > 1
        cells: list[dict[str, str]] = [{"text": _baseline(sides[0], name, known), "note": ""}]
        for pair, here, there in zip(pairs, judged, others, strict=True):
            if name in here:
                case = here[name]
                note = f"× {with_interval(case.ratio, *(_interval(case) or (case.ratio, case.ratio)))[0]}"
                if pair.judged:
                    note += f", {case.verdict}"
                text = _spread_text(case.b_ms, _reach(case))
                cells.append({"text": f"{text} ({case.clock})" if mixed else text, "note": note})
            else:
                cells.append({"text": there[name].b if name in there else ABSENT, "note": ""})
        rows.append({"id": name, "cells": cells})
    return rows


def _baseline(side: Side, name: str, known: Sequence[Judged]) -> str:
    if known:
        by_clock = {case.clock: _spread_text(case.a_ms, _reach(case)) for case in reversed(known)}
        told = [f"{by_clock[clock]} ({clock})" for clock in sorted(by_clock)]
        return "; ".join(told) if len(told) > 1 else by_clock[known[0].clock]
    row = side.rows.get(name)
    return ABSENT if row is None else row.status
