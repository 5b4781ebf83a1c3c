"""What a figure is drawn on: the report's page, or one or two columns of a paper. Sizes, fonts and what is
left to the caption; colours, markers and dashes are the same everywhere (`style`)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .format import clean
from .style import GRID, INK, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

__all__ = ["REPORT", "STYLES", "Sheet", "StyleName", "sheet"]

StyleName = Literal["paper", "report"]
STYLES: tuple[StyleName, ...] = ("paper", "report")

_COMMON: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "svg.hashsalt": "mtbench",  # the same run gives the same file
    "text.color": INK,
    "text.parse_math": False,  # a backend's name may hold a dollar sign
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """How large, how dense, and with what beside the panels."""

    settings: Mapping[str, Any]
    """matplotlib's, on top of its defaults."""
    width_in: float
    """The figure's width, inches."""
    columns: int
    """Panels beside each other, at most, where lines are drawn."""
    dot_columns: int
    """The same where dots are: names stand to the left of each panel."""
    panel_height_in: float
    dot_height_in: float
    """The height of one dot's line, inches."""
    dot_margin_in: float
    """Height of a panel of dots beside its lines, inches."""
    dot_least_in: float
    """The least height of a panel of dots, inches."""
    margin_in: float
    """Height for the legend and, where there is one, the title."""
    legend_columns: int
    """Entries beside each other, at most."""
    legend_handle: float
    """Length of a legend's line, in font sizes."""
    marker_size: float
    """Points."""
    dpi: int
    """Of the PNG."""
    title: bool
    """Whether the figure says what it is; else its caption does."""
    bands: bool
    """Whether an interval is an area along the line; else a bar at each point."""
    colors: int | None = None
    """Colours of the PNG, where so few show it alike, in a third of the bytes; None: all."""

    def canvas(self, height_in: float, title: str) -> Canvas:
        """An empty figure of that height, which says what it is where the sheet's do."""
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=(self.width_in, height_in), dpi=self.dpi, layout="constrained")
        if self.title:
            told = "\n".join(textwrap.wrap(clean(title), 130))
            canvas.suptitle(told, fontsize=9, color=MUTED, x=0.01, ha="left")
        return canvas


REPORT = Sheet(
    settings={
        **_COMMON,
        "axes.labelsize": 9,
        "axes.linewidth": 0.7,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "font.size": 9,
        "grid.linewidth": 0.6,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.5,
        "svg.fonttype": "none",  # text stays text: small, selectable, read aloud
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
    },
    width_in=9,
    columns=3,
    dot_columns=3,
    panel_height_in=3.1,
    dot_height_in=0.24,
    dot_margin_in=0.9,
    dot_least_in=1.6,
    margin_in=1.0,
    legend_columns=8,
    legend_handle=3.2,
    marker_size=4.2,
    dpi=150,
    title=True,
    bands=False,
    colors=256,  # with fewer a line of few pixels gets the colour of another
)

_PAPER_SETTINGS: Mapping[str, Any] = {
    **_COMMON,
    "axes.labelpad": 2,
    "axes.labelsize": 8,
    "axes.linewidth": 0.5,
    "axes.titlepad": 3,
    "axes.titlesize": 8,
    # STIX, which is like Times, comes with matplotlib: a paper's figures look alike wherever they are made.
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "font.size": 8,
    "grid.linewidth": 0.4,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.0,
    "svg.fonttype": "path",  # whoever opens it need not have the font
    "xtick.labelsize": 7,
    "xtick.major.pad": 2,
    "xtick.major.size": 2,
    "xtick.major.width": 0.5,
    "ytick.labelsize": 7,
    "ytick.major.pad": 2,
    "ytick.major.size": 2,
    "ytick.major.width": 0.5,
}


def sheet(style: StyleName, columns: int = 2) -> Sheet:
    """The sheet of a style. `columns` is the width on paper: one column is 3.3 in, two are 7 in."""
    if style == "report":
        return REPORT
    narrow = columns == 1
    return Sheet(
        settings=_PAPER_SETTINGS,
        width_in=3.3 if narrow else 7.0,
        columns=1 if narrow else 3,
        dot_columns=1,
        panel_height_in=1.45 if narrow else 2.0,
        dot_height_in=0.15,
        dot_margin_in=0.25,
        dot_least_in=0.5,
        margin_in=0.6,
        legend_columns=3 if narrow else 7,
        legend_handle=3.0,
        marker_size=3,
        dpi=300,
        title=False,
        bands=True,
    )
