"""What a paper says about a task, as data: its numbers, and its claims, which are held against a run in
`claims`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["PAPER", "QUANTITIES", "Claim", "Published", "Quantity"]

PAPER = "Nguyen, Baraniuk, Kirby, Osher, Wang: Momentum Transformer, PMLR v190 (2022), arXiv 2208.00579"

Quantity = str
"""One of `QUANTITIES`, or the name of one of a task's scores."""
QUANTITIES = ("loss", "metric", "seconds_per_epoch")
"""Of the last epoch on held-out data, the first two; seconds of training, without what is held out."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that a run of several seeds can bear out or not.

    Of one variant, or, where it stands ``against`` another, of the ratio of the two.
    """

    text: str
    quantity: Quantity
    variant: str
    against: str | None = None
    relation: Literal["at least", "at most", "below", "above"]
    bound: float


@dataclass(frozen=True, kw_only=True)
class Published:
    """A paper's table and claims about one task."""

    source: str
    values: Mapping[Quantity, Mapping[str, str]]
    """By variant, in the paper's own digits."""
    claims: tuple[Claim, ...]
    images_per_s: Mapping[str, str] = field(default_factory=dict)
    """How fast it generates, by variant, in the paper's own digits."""
    remark: str = ""
    """What to know of the numbers."""
