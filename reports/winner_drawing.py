"""The map of winners, drawn: every cell says in words what its colour says."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .format import clean, ratio
from .sheets import Sheet
from .style import GRID, INK, MUTED, Look
from .verdict import Race
from .winners import WinnerMap, WinnerPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["draw_winners"]

FONT, LEAST_FONT = 7.5, 4.5
"""Points; a narrow cell has the least."""
LETTER, LINE = 0.6, 1.2
"""Width and height of a letter, in font sizes."""
LABEL_LETTERS = 20
"""Of a line of a shape's name."""
NAME_LENGTH = 16
PALEST, DEEPEST = 0.12, 0.5
"""How much of the backend's colour a cell has: no lead, and `LARGE` or more."""
LARGE = 8.0


def draw_winners(found: WinnerMap, looks: Mapping[str, Look], sheet: Sheet) -> Canvas:
    """The canvas: a panel an attention, a row a shape, a column a length."""
    across = 2 if len(found.lengths) <= 3 and len(found.panels) > 1 and sheet.columns > 1 else 1
    down = math.ceil(len(found.panels) / across)
    texts = {id(race): _lines(race, panel) for panel, race in found.races}
    labels = [textwrap.wrap(clean(shape.label(), 60), LABEL_LETTERS) for shape in found.shapes]
    label_font = sheet.settings["ytick.labelsize"]
    width_in = (sheet.width_in - LETTER * LABEL_LETTERS * label_font / 72) / across - 0.2
    font = _font(width_in / len(found.lengths), [line for lines in texts.values() for line in lines])
    of_labels = max(map(len, labels)) * LINE * label_font / 72
    heights = []
    for at in range(0, len(found.panels), across):
        races = [r for panel in found.panels[at : at + across] for line in panel.cells for r in line if r]
        of_texts = max(len(texts[id(race)]) for race in races) * LINE * font / 72
        heights.append(len(found.shapes) * (max(of_labels, of_texts) + 0.1) + 0.35)
    canvas = sheet.canvas(sum(heights) + (0.75 if sheet.title else 0.4), found.title)
    grid = canvas.subplots(
        down, across, sharex=True, sharey=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    axes = [ax for line in grid for ax in line]
    for ax in axes[len(found.panels) :]:
        ax.remove()
    for at, (ax, panel) in enumerate(zip(axes, found.panels, strict=False)):
        _panel(ax, panel, texts, looks, font)
        ax.set_xticks(range(len(found.lengths)), [str(n) for n in found.lengths])
        ax.set_yticks(range(len(labels)), ["\n".join(lines) for lines in labels])
        if at + across >= len(found.panels):
            ax.set_xlabel("seq_len (tokens)")
            ax.tick_params(axis="x", labelbottom=True)
    return canvas


def _font(width_in: float, lines: list[str]) -> float:
    """Points, so that the longest line fits into a cell."""
    longest = max(map(len, lines))
    return max(LEAST_FONT, min(FONT, 72 * width_in / (LETTER * longest + 1)))


def _lines(race: Race, panel: WinnerPanel) -> list[str]:
    """What a cell says: who, and by how much."""
    winner = race.winner
    who = [winner.backend, winner.form]
    who = [_cut(clean(name)) for name in (who if panel.attention else [winner.attention, *who])]
    if race.ratio is None:
        return [*who, "alone"]
    return [*who, f"{ratio(race.ratio)}{'' if race.sure else ' unsure'}"]


def _cut(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _panel(
    ax: Axes,
    panel: WinnerPanel,
    texts: Mapping[int, list[str]],
    looks: Mapping[str, Look],
    font: float,
) -> None:
    from matplotlib.patches import Rectangle

    ax.set_title(clean(panel.title, 40), loc="left")
    for y, line in enumerate(panel.cells):
        for x, race in enumerate(line):
            told, color = "–", MUTED
            if race is not None:
                told, color = "\n".join(texts[id(race)]), INK
                cell = Rectangle((x - 0.5, y - 0.5), 1, 1, alpha=_depth(race), linewidth=0, clip_on=False)
                cell.set_facecolor(looks[race.winner.backend].color)
                ax.add_patch(cell)
            ax.text(x, y, told, ha="center", va="center", fontsize=font, color=color, linespacing=1.15)
    for x in range(len(panel.cells[0]) + 1):
        ax.axvline(x - 0.5, color=GRID, linewidth=0.8, clip_on=False)
    for y in range(len(panel.cells) + 1):
        ax.axhline(y - 0.5, color=GRID, linewidth=0.8, clip_on=False)
    ax.set_xlim(-0.5, len(panel.cells[0]) - 0.5)
    ax.set_ylim(len(panel.cells) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _depth(race: Race) -> float:
    """How much of the colour: by the logarithm of the lead; a winner without a next has the palest."""
    lead = min(1.0, math.log(race.ratio or 1.0) / math.log(LARGE))
    return PALEST + (DEEPEST - PALEST) * lead
