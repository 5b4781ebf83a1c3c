"""Two runs, or files of pytest-benchmark, compared case by case: slower, faster, same or unsure.

`docs/comparing.md` says what a verdict means, how the test works and what it was measured to find.
"""

from __future__ import annotations

from mtbench.compare.beside import Pair, set_beside
from mtbench.compare.cases import match
from mtbench.compare.machines import differences
from mtbench.compare.noise import Floor, measure_floor
from mtbench.compare.sides import Side, read_side
from mtbench.compare.verdicts import Comparison, compare_sides
from mtbench.compare.writing import comparison_json, comparison_markdown, floor_json, floor_markdown

__all__ = [
    "Comparison",
    "Floor",
    "Pair",
    "Side",
    "compare_sides",
    "comparison_json",
    "comparison_markdown",
    "differences",
    "floor_json",
    "floor_markdown",
    "match",
    "measure_floor",
    "read_side",
    "set_beside",
]
