"""How the figures and pages of what is trained tell its variants apart: by a name, and in a legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mtbench.training.variants import Variant

from .format import clean
from .sheets import Sheet
from .style import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

__all__ = ["label", "variant_legend"]


def label(variant: str) -> str:
    """A variant as a reader is told it; what is none as it stands.

    >>> label("momentum+adaptive"), label("<b>")
    ('momentum + adaptive connection', '<b>')
    """
    try:
        return Variant.parse(variant).label
    except ValueError:
        return variant


def variant_legend(canvas: Canvas, variants: Iterable[str], looks: Mapping[str, Look], sheet: Sheet) -> None:
    """Below the panels: each variant once, by its colour and marker."""
    from matplotlib.lines import Line2D

    there = dict.fromkeys(variants)
    canvas.legend(
        [
            Line2D([], [], color=looks[v].color, marker=looks[v].marker, markersize=1.3 * sheet.marker_size)
            for v in there
        ],
        [clean(label(v), 44) for v in there],
        loc="outside lower left",
        ncols=3,
        handlelength=sheet.legend_handle,
        columnspacing=1.2,
    )
