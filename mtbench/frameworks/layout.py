"""Array layouts, named by the order of their axes: b batch, h heads, n positions, d dim."""

from __future__ import annotations

from mtbench.inputs import Array

__all__ = ["from_bhnd", "to_bhnd"]


def from_bhnd(array: Array, layout: str) -> Array:
    """A view of a [batch, heads, positions, dim] array in another layout.

    >>> import numpy as np
    >>> from_bhnd(np.zeros((2, 3, 5, 7)), "bnhd").shape
    (2, 5, 3, 7)
    """
    return array.transpose(["bhnd".index(axis) for axis in layout])


def to_bhnd(array: Array, layout: str) -> Array:
    """The inverse of `from_bhnd`."""
    return array.transpose([layout.index(axis) for axis in "bhnd"])
