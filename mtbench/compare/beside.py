"""Several runs beside one another: the first is the baseline, and each of the others is set against it.

`mtbench compare` gates, so it refuses machines that differ. A report has to be made of them, too, since two
GPUs, or a CPU and a GPU, are what its reader wants to see: there they stand side by side, and no case is
called slower or faster unless that was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtbench.compare.machines import differences, software_differences
from mtbench.compare.sides import Side, TimedRow
from mtbench.compare.verdicts import EFFECT_PERCENT, Comparison, compare_sides
from mtbench.errors import BadInput

__all__ = ["Pair", "letter", "set_beside"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The baseline and one of the others."""

    name: str
    """The other's letter; the baseline is A."""
    comparison: Comparison
    unlike: tuple[str, ...]
    """In what the machines differ, in words; empty where they are alike."""
    judged: bool
    """Whether its verdicts count: the machines are alike, or it was asked for though they are not."""

    @property
    def remarks(self) -> list[str]:
        """What a reader has to know beside the cases. Of unlike machines nothing is said that only makes
        sense of one: a drift, or launches that a verdict would need."""
        if self.judged:
            found = self.comparison.remarks
        else:
            a, b = self.comparison.a, self.comparison.b
            found = [f"{name}: {text}" for name, side in (("A", a), ("B", b)) for text in side.remarks]
            if software := software_differences(a, b):
                found.append(f"A and B differ in: {'; '.join(software)}")
        return [text for text in found if not text.startswith("the machines differ")]


def letter(number: int) -> str:
    """The name of a run by its place.

    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', 'AA')
    """
    high, low = divmod(number, 26)
    return (letter(high - 1) if high else "") + chr(ord("A") + low)


def set_beside(
    sides: Sequence[Side], *, effect_percent: float = EFFECT_PERCENT, across_machines: bool = False
) -> list[Pair]:
    """Each run after the first against the first.

    Args:
        sides: two or more.
        effect_percent: the smallest effect that matters, %.
        across_machines: whether verdicts count though the machines differ.

    Raises:
        BadInput: there is one side alone, two have no case in common, or the effect is out of range.
    """
    if len(sides) < 2:
        raise BadInput("one run stands beside nothing: give two or more")
    first, *others = sides
    pairs = []
    for number, side in enumerate(others, start=1):
        other, moved = _on_its_device(first, side)
        unlike = (*differences(first, side), *moved)
        pairs.append(
            Pair(
                name=letter(number),
                comparison=compare_sides(first, other, effect_percent=effect_percent, across_machines=True),
                unlike=unlike,
                judged=across_machines or not unlike,
            )
        )
    return pairs


def _on_its_device(a: Side, b: Side) -> tuple[Side, list[str]]:
    """B with its cases under A's names where the two have none in common but for the device; and the devices,
    in words."""
    if any(name in b.rows for name in a.rows):
        return b, []
    homes = _by_case(a)
    moved = {case: row for case, row in _by_case(b).items() if case in homes}
    if not moved:
        return b, []
    names = {row.id: homes[case].id for case, row in moved.items()}
    rows = {names.get(name, name): replace(row, id=names.get(name, name)) for name, row in b.rows.items()}
    here, there = (
        ", ".join(dict.fromkeys(row.device for row in found))
        for found in ((homes[case] for case in moved), moved.values())
    )
    return replace(b, rows=rows), [f"device {here} and {there} (B's cases stand under A's names)"]


def _by_case(side: Side) -> dict[str, TimedRow]:
    """The rows whose case was done on one device alone."""
    counts = Counter(row.anywhere for row in side.rows.values())
    return {row.anywhere: row for row in side.rows.values() if row.anywhere and counts[row.anywhere] == 1}
