"""A comparison and a noise floor as Markdown, for a pull request, and as JSON, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from mtbench.compare.noise import Floor
from mtbench.compare.sides import Side
from mtbench.compare.verdicts import VERDICTS, Comparison, Judged

__all__ = [
    "CASE_HEADINGS",
    "FLOOR_HEADINGS",
    "case_cells",
    "comparison_json",
    "comparison_markdown",
    "floor_cells",
    "floor_json",
    "floor_lines",
    "floor_markdown",
    "milliseconds",
    "sorted_cases",
]

JSON_SCHEMA = 1
CASE_HEADINGS = ("verdict", "case", "A, ms", "B, ms", "B / A", "95% interval", "clock", "launches")
FLOOR_HEADINGS = ("", "cases", "median", "90%", "95%", "max", "flagged", "found", "found 90%")


def sorted_cases(comparison: Comparison) -> list[Judged]:
    """Slower, faster, unsure, same; within each what differs most first."""
    return sorted(
        comparison.judged,
        key=lambda case: (VERDICTS.index(case.verdict), -abs(math.log(case.ratio))),
    )


def case_cells(case: Judged) -> tuple[str, ...]:
    """The cells under `CASE_HEADINGS`."""
    interval = "-"
    if case.ratio_low is not None and case.ratio_high is not None:
        interval = f"{case.ratio_low:.3f} to {case.ratio_high:.3f}"
    return (
        case.verdict,
        case.id,
        milliseconds(case.a_ms),
        milliseconds(case.b_ms),
        f"{case.ratio:.3f}",
        interval,
        case.clock,
        str(case.launches_a)
        if case.launches_a == case.launches_b
        else f"{case.launches_a} and {case.launches_b}",
    )


def milliseconds(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}"


def comparison_markdown(comparison: Comparison) -> str:
    """What is not `same` in a table, and the rest folded away."""
    cases = sorted_cases(comparison)
    lines = [f"**mtbench compare**: {comparison.summary}", ""]
    lines += [f"A is `{comparison.a.path}`, B is `{comparison.b.path}`; B / A over 1 is slower.", ""]
    if remarks := comparison.remarks:
        lines += [*(f"- {_escaped(remark)}" for remark in remarks), ""]
    changed = [case for case in comparison.others if case.changed]
    if changed:
        rows = [
            (_outcome(case.broken), f"`{case.id}`", case.a, case.b, _escaped(case.reason)) for case in changed
        ]
        lines += [*_table(("", "case", "A", "B", "reason"), rows), ""]
    loud = [case for case in cases if case.verdict != "same"]
    same = [case for case in cases if case.verdict == "same"]
    if loud:
        lines += [*_table(CASE_HEADINGS, map(_markdown_cells, loud)), ""]
    if same:
        lines += ["<details>", f"<summary>{len(same)} same</summary>", ""]
        lines += [*_table(CASE_HEADINGS, map(_markdown_cells, same)), "", "</details>", ""]
    return "\n".join(lines)


def _outcome(broken: bool) -> str:
    return "**broken**" if broken else "changed"


def _markdown_cells(case: Judged) -> tuple[str, ...]:
    verdict, name, *rest = case_cells(case)
    if case.verdict in ("slower", "faster"):
        verdict = f"**{verdict}**"
    elif case.reason:
        verdict = f"{verdict}: {case.reason}"
    return (verdict, f"`{name}`", *rest)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(headings)} |",
        f"|{' --- |' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comparison_json(comparison: Comparison) -> str:
    """Everything, a case an object; times in milliseconds, ratios B over A."""
    data = {
        "schema": JSON_SCHEMA,
        **_comparison(comparison),
        "cases": [_finite(asdict(case)) for case in sorted_cases(comparison)],
        "others": [{**asdict(case), "broken": case.broken} for case in comparison.others],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "effect_percent": comparison.effect_percent,
        "counts": comparison.counts,
        "exit_code": comparison.exit_code,
        "summary": comparison.summary,
        "remarks": comparison.remarks,
        "drift_ratio": comparison.drift_ratio,
        "widened": comparison.widened,
    }


def _side(side: Side) -> dict[str, Any]:
    return {"path": str(side.path), "machine": dict(side.machine), "software": dict(side.software)}


def _finite(case: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: what was not tested has none of these figures."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in case.items()
    }


def floor_cells(floor: Floor) -> list[tuple[str, ...]]:
    """The rows under `FLOOR_HEADINGS`: all backends, then each."""
    return [
        (
            row.backend,
            str(row.cases),
            *(
                f"{value:.1f}%"
                for value in (row.median_percent, row.p90_percent, row.p95_percent, row.max_percent)
            ),
            f"{row.slower + row.faster} ({row.flagged_percent:.1f}%)",
            *(
                "-" if value is None else f"{value:.1f}%"
                for value in (row.found_median_percent, row.found_p90_percent)
            ),
        )
        for row in floor.scatter
    ]


def floor_lines(floor: Floor) -> list[str]:
    """What the table means, a line each."""
    pairs = len(floor.comparisons)
    counts = sorted({n for pair in floor.comparisons for case in pair.judged for n in _launches(case)})
    launches = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    drifts = ", ".join(f"{drift:+.1f}%" for drift in floor.drifts_percent)
    widened = ", ".join(f"{pair.widened:.2f}" for pair in floor.comparisons)
    runs = f"{pairs} pair{'s' if pairs > 1 else ''} of runs of the same code, {launches} launches a side"
    lines = [
        f"{runs}: how far a case is from itself, |log(B / A)|, and how many were flagged slower or faster.",
        "found (four times in five): that slow-down of the middle case alone; found 90%: of 9 cases in 10.",
        f"drift shared by most backends: {drifts}; standard errors widened by {widened}.",
    ]
    for pair in floor.comparisons:
        lines += [line for line in pair.remarks if line.startswith("A and B differ in")]
    return lines


def _launches(case: Judged) -> tuple[int, int]:
    return case.launches_a, case.launches_b


def floor_markdown(floor: Floor) -> str:
    """noise.md."""
    lines = ["**mtbench noise**", "", *(f"- {_escaped(line)}" for line in floor_lines(floor)), ""]
    return "\n".join([*lines, *_table(FLOOR_HEADINGS, floor_cells(floor)), ""])


def floor_json(floor: Floor) -> str:
    """noise.json: the figures of the table, and of each pair the drift and the verdicts."""
    data = {
        "schema": JSON_SCHEMA,
        "scatter": [{**asdict(row), "flagged_percent": row.flagged_percent} for row in floor.scatter],
        "pairs": [_comparison(pair) for pair in floor.comparisons],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"
