"""Who wins where, as a map: lengths across, the other sizes down, the winner and its lead in each cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mtbench.results import Measurement

from .format import count, listing, ratio
from .settings import CLOCK_NAMES, Clock, Context, Shape
from .verdict import Race, Verdict, judge

__all__ = ["MOST_LENGTHS", "MOST_SHAPES", "WinnerMap", "WinnerPanel", "winner_maps"]

MOST_LENGTHS = 12
"""Across; more leave no room for a name."""
MOST_SHAPES = 16
OVERALL = "all attentions"


@dataclass(frozen=True, kw_only=True)
class WinnerPanel:
    """One attention, or all of them together."""

    title: str
    attention: str | None
    cells: tuple[tuple[Race | None, ...], ...]
    """[shape, length]; None where nothing has a time."""


@dataclass(frozen=True, kw_only=True)
class WinnerMap:
    """The map of one context on one clock; at least two cells and one panel."""

    name: str
    quantity: Literal["winners"] = "winners"
    clock: Clock
    title: str
    caption: str
    alt: str
    context: Context
    lengths: tuple[int, ...]
    shapes: tuple[Shape, ...]
    panels: tuple[WinnerPanel, ...]

    @property
    def races(self) -> list[tuple[WinnerPanel, Race]]:
        """Those of all cells, with their panel."""
        return [(panel, race) for panel in self.panels for line in panel.cells for race in line if race]

    @property
    def rows(self) -> list[Measurement]:
        """Those that are named or that a lead is reckoned from."""
        return [c.row for _, race in self.races for c in race.ranking[:2]]


def winner_maps(rows: Sequence[Measurement]) -> Iterable[WinnerMap]:
    """One for each context and clock in which more than one size was measured."""
    groups: dict[tuple[Context, Clock], list[Verdict]] = {}
    for verdict in judge(rows):
        groups.setdefault((verdict.context, verdict.clock), []).append(verdict)
    for verdicts in groups.values():
        lengths = sorted({n for v in verdicts for n, _ in v.races})
        if len(lengths) * len(verdicts) > 1 and (found := _map(verdicts, lengths)):
            yield found


def _map(verdicts: Sequence[Verdict], lengths: Sequence[int]) -> WinnerMap | None:
    """That of one context and clock; None where what has a time is all left out."""
    context, clock = verdicts[0].context, verdicts[0].clock
    across, down = _spread(lengths, MOST_LENGTHS), verdicts[:MOST_SHAPES]
    attentions: list[str | None] = [*dict.fromkeys(a for v in verdicts for a in v.attentions)]
    if len(attentions) > 1:
        attentions.insert(0, None)
    every = [_panel(attention, down, across) for attention in attentions]
    panels = tuple(panel for panel in every if any(race for line in panel.cells for race in line))
    if not panels:
        return None
    caption = (
        f"The fastest form by the median, {CLOCK_NAMES[clock]}, and how many times as long the next one "
        "takes: the deeper the colour, the longer. Where the two intervals overlap the lead is unsure."
    )
    left_out = [
        f"{whole - part} of {whole} {what}"
        for what, whole, part in (
            ("lengths", len(lengths), len(across)),
            ("shapes", len(verdicts), len(down)),
        )
        if whole > part
    ]
    if left_out:
        caption += f" Not drawn for want of room: {listing(left_out)}."
    return WinnerMap(
        name="-".join(["winners", *([clock] if context.device == "cuda" else []), context.slug]),
        clock=clock,
        title=f"Who wins where: {context.label}; {CLOCK_NAMES[clock]}",
        caption=caption,
        alt=f"Who wins where, seq_len {listing(across)}, {count(len(down), 'shape')}. "
        + " ".join(_told(panel) for panel in panels),
        context=context,
        lengths=tuple(across),
        shapes=tuple(v.shape for v in down),
        panels=panels,
    )


def _spread(lengths: Sequence[int], most: int) -> list[int]:
    """So many of them at the most, both ends among them."""
    if len(lengths) <= most:
        return list(lengths)
    return [lengths[round(at * (len(lengths) - 1) / (most - 1))] for at in range(most)]


def _panel(attention: str | None, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> WinnerPanel:
    return WinnerPanel(
        title=attention or OVERALL,
        attention=attention,
        cells=tuple(tuple(v.races.get((n, attention)) for n in lengths) for v in verdicts),
    )


def _told(panel: WinnerPanel) -> str:
    """How often each one wins, for who does not see the map."""
    wins: dict[str, list[Race]] = {}
    for race in (race for line in panel.cells for race in line if race):
        who = race.winner.name if panel.attention else f"{race.winner.attention} by {race.winner.name}"
        wins.setdefault(who, []).append(race)
    ordered = sorted(wins.items(), key=lambda item: -len(item[1]))
    told = []
    for who, races in ordered:
        leads = [race.ratio for race in races if race.ratio is not None]
        told.append(f"{who} in {len(races)}{f', at most {ratio(max(leads))} ahead' if leads else ''}")
    return f"{panel.title}: {'; '.join(told)}."
