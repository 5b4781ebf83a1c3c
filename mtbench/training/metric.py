"""What a task measures beside its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["ACCURACY", "BITS_PER_DIM", "Metric"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of held-out data."""

    name: str
    """As a table's heading has it."""
    unit: str
    better: Literal["more", "less"]
    least: float = 0.0
    """No value is below; the interval of a mean ends there."""
    most: float = math.inf
    timed: bool = False
    """Whether it is a speed, which trainings side by side disturb."""


ACCURACY = Metric(name="accuracy", unit="share of 1", better="more", most=1.0)
BITS_PER_DIM = Metric(name="bits/dim", unit="bits a pixel and channel", better="less")
