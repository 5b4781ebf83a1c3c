"""What a run has no ranked time of, and why: grouped, so that nothing vanishes and nothing drowns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtbench.results import DOES_LESS, FAILURES, STATUSES, Measurement

from .format import error

__all__ = ["MEANINGS", "Group", "careful", "not_timed", "untimed"]

MEANINGS: Mapping[str, str] = {
    "ok": "ran, and agrees with the float64 oracle",
    "wrong": "ran, and its error is above the tolerance: in no ranking",
    "crash": "its worker process died",
    "timeout": "took longer than the run allows a case",
    "error": "raised an error",
    "oom": "needs more memory than there is",
    "unsupported": "the backend declares that it does not do it",
    "unavailable": "this machine lacks what it needs",
}
_ORDER: Mapping[str, int] = {s: i for i, s in enumerate(sorted(STATUSES, key=lambda s: s not in FAILURES))}
"""Failures first."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that share a status and a reason."""

    status: str
    reason: str
    rows: tuple[Measurement, ...]

    @property
    def failure(self) -> bool:
        """Whether it makes the run's exit code 1."""
        return self.status in FAILURES

    @property
    def size(self) -> int:
        """How many rows."""
        return len(self.rows)

    @property
    def backends(self) -> list[str]:
        """Whose rows they are."""
        return sorted({row.backend for row in self.rows})


def _grouped(keyed: Iterable[tuple[tuple[str, str], Measurement]]) -> list[Group]:
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for key, row in keyed:
        groups.setdefault(key, []).append(row)
    found = [
        Group(status=s, reason=r, rows=tuple(sorted(rows, key=lambda m: m.id)))
        for (s, r), rows in groups.items()
    ]
    return sorted(found, key=lambda g: (_ORDER.get(g.status, len(_ORDER)), -len(g.rows), g.reason))


def not_timed(rows: Sequence[Measurement]) -> list[Group]:
    """The rows that are not ok, failures first, the largest group of a status first."""
    return _grouped(((row.status, _why(row)), row) for row in rows if row.status != "ok")


def _why(row: Measurement) -> str:
    if row.reason:
        return row.reason
    if row.status == "wrong":
        return f"relative error {error(row.relative_error)}, tolerance {error(row.tolerance)}"
    return "no reason was given"


def untimed(rows: Sequence[Measurement]) -> list[Group]:
    """The rows that are right and have no time: numerics only."""
    return _grouped(
        ((row.status, row.wall_reason or row.reason or "no reason was given"), row)
        for row in rows
        if row.status == "ok" and not row.timed
    )


def careful(rows: Sequence[Measurement]) -> list[Group]:
    """The timed rows with a remark, such as noisy or slow."""
    return _grouped(
        ((row.status, f"{flag}: {row.reason}" if flag == DOES_LESS else flag), row)
        for row in rows
        if row.timed
        for flag in row.flags
    )
