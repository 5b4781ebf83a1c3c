"""Sentence pairs in batches of a few shapes: each as long as its longest sentence may be, and as many
sentences as make a step of about the same number of positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtbench.inputs import Array
from mtbench.training.tasks.passes import shuffled

__all__ = ["Pairs", "filled", "in_buckets", "in_order", "widths"]

Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Subwords of source and target."""
WIDTHS = 4
"""Shapes at most: of half, a quarter and an eighth of the positions."""
NARROWEST = 8


def widths(longest: int) -> tuple[int, ...]:
    """Positions of each shape, ascending.

    >>> widths(80), widths(12)
    ((10, 20, 40, 80), (12,))
    """
    found = [longest]
    while len(found) < WIDTHS and found[-1] // 2 >= NARROWEST:
        found.append(found[-1] // 2)
    return tuple(reversed(found))


def filled(rows: Sequence[Sequence[int]], width: int) -> tuple[Array, Array]:
    """[rows, width] int32 with padding of 0, and how long each is, [rows] int32."""
    lengths = np.array([len(row) for row in rows], np.int32)
    made = np.zeros((len(rows), width), np.int32)
    for at, row in enumerate(rows):
        made[at, : len(row)] = row
    return made, lengths


def _by_width(pairs: Pairs, longest: int) -> list[tuple[int, Array]]:
    """The pairs of each shape, by their places; shapes without any are left out."""
    all_widths = np.array(widths(longest))
    sizes = np.array([max(len(source), len(target)) for source, target in pairs])
    shape = np.searchsorted(all_widths, sizes)
    found = [(int(width), np.flatnonzero(shape == at)) for at, width in enumerate(all_widths)]
    return [(width, places) for width, places in found if len(places)]


def in_buckets(
    pairs: Pairs, longest: int, *, batch: int, steps: int, seed: int, epoch: int
) -> list[dict[str, Array]]:
    """An epoch's batches: of each shape ``source`` and ``target``, [steps, batch, width], and their lengths,
    [steps, batch]. `batch` is that of the longest; shorter ones have more in a step.

    Steps are shared out so that each pair is seen about as often as any other, and each shape has one at
    least where there are as many. Pairs longer than `longest` are none of these.
    """
    shapes = _by_width(pairs, longest)
    batches = [batch * longest // width for width, _ in shapes]
    shares = _shares([len(places) / many for (_, places), many in zip(shapes, batches, strict=True)], steps)
    groups = []
    for (width, places), many, own in zip(shapes, batches, shares, strict=True):
        if own:
            first, wanted = epoch * own * many, own * many
            chosen = places[shuffled(len(places), seed, width, first=first, wanted=wanted)]
            groups.append(_group(pairs, chosen, width, (own, many)))
    return groups


def in_order(pairs: Pairs, longest: int, *, batch: int, most: int) -> list[dict[str, Array]]:
    """All of them once, in at most so many batches of each shape; ``there``, [steps, batch], is false for
    what fills up the last one, and ``place`` says which pair each is."""
    groups = []
    for width, places in _by_width(pairs, longest):
        many = batch * longest // width
        steps = min(most, -(-len(places) // many))
        at = np.arange(steps * many)
        chosen = places[at % len(places)]
        group = _group(pairs, chosen, width, (steps, many))
        group["there"] = (at < len(places)).reshape(steps, many)
        group["place"] = chosen.reshape(steps, many)
        groups.append(group)
    return groups


def _group(pairs: Pairs, chosen: Array, width: int, shape: tuple[int, int]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, side in (("source", 0), ("target", 1)):
        rows, lengths = filled([pairs[at][side] for at in chosen], width)
        found[name] = rows.reshape(*shape, width)
        found[f"{name}_lengths"] = lengths.reshape(shape)
    return found


def _shares(wanted: Sequence[float], steps: int) -> list[int]:
    """Whole numbers in proportion that add up to `steps`; the smaller a shape the later it goes without."""
    total = sum(wanted)
    exact = [steps * one / total for one in wanted]
    floors = [max(int(x), 1) if steps >= len(wanted) else int(x) for x in exact]
    order = sorted(range(len(exact)), key=lambda at: floors[at] - exact[at])
    while sum(floors) < steps:
        at = min(order, key=lambda i: floors[i] - exact[i])
        floors[at] += 1
    while sum(floors) > steps:
        at = max((i for i in order if floors[i] > 1), key=lambda i: floors[i] - exact[i])
        floors[at] -= 1
    return floors
