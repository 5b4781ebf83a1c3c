"""How a backend and a form look, the same in every figure and in the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "THEMED",
    "Look",
    "backend_looks",
    "form_dashes",
    "variant_looks",
]

INK, MUTED, GRID, PAPER = "#1f2328", "#6e7781", "#d8dee4", "#ffffff"
THEMED: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--card",
    "#0072b2": "--blue",
    "#d55e00": "--vermilion",
    "#009e73": "--green",
    "#cc79a7": "--purple",
    "#e69f00": "--orange",
    "#56b4e9": "--sky",
}
"""The colours of a figure, and the page's variables that replace them there to follow light and dark."""


@dataclass(frozen=True)
class Look:
    """A backend's colour and marker."""

    color: str
    marker: str


# Okabe and Ito's colours, told apart by colour-blind readers; without their yellow, which white swallows.
_LOOKS = (
    Look("#0072b2", "o"),
    Look("#d55e00", "s"),
    Look("#009e73", "^"),
    Look("#cc79a7", "D"),
    Look("#e69f00", "v"),
    Look("#56b4e9", "P"),
    Look(INK, "X"),
)
_MARKERS = ("<", ">", "p", "h", "*", "d", "8")
_KNOWN = ("torch-eager", "torch-compile", "triton", "jax", "native")
_KNOWN_VARIANTS = (
    *("linear", "softmax", "momentum", "momentum+adaptive", "momentum+momentum", "momentum-released"),
)

Dash = tuple[float, tuple[float, ...]] | str
_DASHES: Mapping[str, Dash] = {
    "parallel": "-",
    "chunked": (0, (5, 1.6)),
    "recurrent": (0, (1, 1.3)),
    "sdpa": (0, (7, 1.5, 1.2, 1.5)),
    "fused": (0, (4, 1, 1, 1, 1, 1)),
    "xla": (0, (2.4, 2)),
    "flex": (0, (3, 1, 3, 4)),
    "cudnn": (0, (1, 3)),
}
_MORE_DASHES: tuple[Dash, ...] = (
    (0, (9, 2.5)),
    (0, (5, 1, 1, 1, 1, 1, 1, 1)),
    (0, (3, 3)),
    (0, (9, 1.5, 1, 1.5, 1, 1.5)),
    (0, (1.5, 1)),
    (0, (12, 2, 4, 2)),
    (0, (2, 1, 2, 4)),
    (0, (7, 4)),
)


def backend_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each backend: mtbench's own have theirs in every report, others take what is left in the
    order of their names, then what belongs to one that is not there. Past seven, colours come again with
    markers of their own.
    """
    return _looks(names, _KNOWN)


def variant_looks(names: Iterable[str]) -> dict[str, Look]:
    """The same for what is trained: the variants that are trained by default have theirs in every report."""
    return _looks(names, _KNOWN_VARIANTS)


def _looks(names: Iterable[str], known: tuple[str, ...]) -> dict[str, Look]:
    there = set(names)
    theirs = dict(zip(known, _LOOKS, strict=False))
    spare = [
        *_LOOKS[len(known) :],
        *(look for name, look in theirs.items() if name not in there),
        *(
            Look(_LOOKS[i % len(_LOOKS)].color, _MARKERS[(i + i // len(_LOOKS)) % len(_MARKERS)])
            for i in range(len(_LOOKS) * len(_MARKERS))
        ),
    ]
    others = sorted(there - set(known))
    looks = {name: look for name, look in theirs.items() if name in there}
    return looks | {name: spare[i % len(spare)] for i, name in enumerate(others)}


def form_dashes(names: Iterable[str]) -> dict[str, Dash]:
    """A line style for each form: the usual forms have theirs, others take what is left by name."""
    others = sorted(set(names) - set(_DASHES))
    return dict(_DASHES) | {name: _MORE_DASHES[i % len(_MORE_DASHES)] for i, name in enumerate(others)}
