"""Two sides matched case by case, and the clock each case is compared by."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.compare.sides import Side, TimedRow
from mtbench.errors import BadInput

__all__ = ["Matched", "Unjudged", "match"]

ABSENT = "absent"
NOT_TIMED = "ok, not timed"


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A case that was timed on both sides."""

    id: str
    backend: str
    clock: str
    """``device`` where both sides have it, else ``wall``: one clock for both sides of a case."""
    a_ms: tuple[float, ...]
    """The median of each launch of A."""
    b_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A case that was not timed on both sides."""

    id: str
    backend: str
    a: str
    """Its status in A, or `ABSENT`, or `NOT_TIMED`."""
    b: str
    reason: str = ""
    """B's, else A's."""

    @property
    def broken(self) -> bool:
        """It worked in A, and B has tried it and failed."""
        return self.a in ("ok", NOT_TIMED) and self.b not in ("ok", NOT_TIMED, ABSENT)

    @property
    def changed(self) -> bool:
        """The two sides say different things."""
        return self.a != self.b


def match(a: Side, b: Side) -> tuple[list[Matched], list[Unjudged]]:
    """The cases timed on both sides, and all others; in A's order, then what only B has.

    Raises:
        BadInput: no case is on both sides.
    """
    if not any(name in b.rows for name in a.rows):
        raise BadInput(
            f"{a.path} and {b.path} have no case in common: measure the same attention, sizes and dtype "
            "in both"
        )
    matched: list[Matched] = []
    others: list[Unjudged] = []
    for name in [*a.rows, *(name for name in b.rows if name not in a.rows)]:
        row_a, row_b = a.rows.get(name), b.rows.get(name)
        if row_a is not None and row_b is not None and row_a.wall_ms and row_b.wall_ms:
            device = bool(row_a.device_ms and row_b.device_ms)
            matched.append(
                Matched(
                    id=name,
                    backend=row_b.backend or row_a.backend,
                    clock="device" if device else "wall",
                    a_ms=row_a.device_ms if device else row_a.wall_ms,
                    b_ms=row_b.device_ms if device else row_b.wall_ms,
                )
            )
            continue
        known = row_b or row_a
        assert known is not None  # noqa: S101  (the name came from one of them)
        reasons = [row.reason for row in (row_b, row_a) if row is not None and row.reason]
        others.append(
            Unjudged(
                id=name,
                backend=known.backend,
                a=_status(row_a),
                b=_status(row_b),
                reason=reasons[0] if reasons else "",
            )
        )
    return matched, others


def _status(row: TimedRow | None) -> str:
    if row is None:
        return ABSENT
    return NOT_TIMED if row.status == "ok" and not row.wall_ms else row.status
