"""Expressions of ListOps, drawn by the grammar of its Long Range Arena version, with their values.

An expression is a digit, or one of MIN, MAX, MED (the median, rounded down) and SM (the sum modulo 10) of 2
to 10 expressions. Down to a depth of 10 a part is an operation with a probability of 1/4, else a digit, all
ten alike; at that depth it is a digit. An expression is kept if the number of its symbols lies strictly
between two bounds. (Tay et al.: Long Range Arena, 2020, arXiv 2011.04006, and the generator released with
it.)

Ten thousand expressions have millions of parts. They are drawn level by level, all expressions at once: the
children of a level's operations are the next level, in order, so that values are sums and extremes over runs
of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtbench.inputs import Array
from mtbench.training.tasks.classified import Labelled

__all__ = ["CLOSE", "DIGIT", "OPERATORS", "SYMBOLS", "draw"]

DIGIT, OPERATORS, CLOSE = 1, (11, 12, 13, 14), 15
"""Symbols beside padding, 0: the digit 0 (and the nine after it), ``[MIN [MAX [MED [SM`` and ``]``."""
SYMBOLS = 16
MAX_DEPTH, MAX_ARGUMENTS = 10, 10
OPERATION = 0.25
"""The probability that a part is an operation."""
AT_ONCE = 4096
"""Expressions that are begun together."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """The parts of one depth, of all expressions."""

    tree: Array
    """Whose each is."""
    operator: Array
    """Which of `OPERATORS`, or -1 of a digit."""
    digit: Array
    arguments: Array
    """How many parts of the next level are each one's own; 0 of a digit."""

    def only(self, kept: Array) -> _Level:
        """Of the expressions that are kept."""
        here = kept[self.tree]
        return _Level(
            tree=self.tree[here],
            operator=self.operator[here],
            digit=self.digit[here],
            arguments=self.arguments[here],
        )


def draw(count: int, *, shortest: int, longest: int, seed: int) -> Labelled:
    """`count` expressions of more than `shortest` and fewer than `longest` symbols. The same arguments give
    the same expressions."""
    rng = np.random.default_rng((seed, 20_11_04006))
    parts, there = [], 0
    while there < count:
        some = _written(_grown(rng, shortest, longest))
        parts.append(some)
        there += len(some.lengths)
    lengths = np.concatenate([part.lengths for part in parts])[:count]
    return Labelled(
        symbols=np.concatenate([part.symbols for part in parts])[: int(lengths.sum())],
        lengths=lengths,
        values=np.concatenate([part.values for part in parts])[:count],
    )


def _grown(rng: np.random.Generator, shortest: int, longest: int) -> list[_Level]:
    """The levels of the expressions that are kept, of `AT_ONCE` that are begun.

    Each begins with an operation: one that does not is a digit, which is too short. One that is sure to
    become too long grows no further.
    """
    tree = np.arange(AT_ONCE, dtype=np.int32)
    lengths = np.zeros(AT_ONCE, np.int64)
    levels = []
    for depth in range(1, MAX_DEPTH + 1):
        likely = 1.0 if depth == 1 else OPERATION if depth < MAX_DEPTH else 0.0
        is_operation = (rng.random(len(tree)) < likely) & (lengths[tree] < longest)
        arguments = np.where(is_operation, rng.integers(2, MAX_ARGUMENTS + 1, len(tree)), 0)
        levels.append(
            _Level(
                tree=tree,
                operator=np.where(is_operation, rng.integers(0, len(OPERATORS), len(tree)), -1),
                digit=rng.integers(0, 10, len(tree)),
                arguments=arguments,
            )
        )
        lengths += np.bincount(tree, weights=1 + is_operation, minlength=AT_ONCE).astype(np.int64)
        tree = np.repeat(tree, arguments)
        if not len(tree):
            break
    kept = (lengths > shortest) & (lengths < longest)
    return [level.only(kept) for level in levels]


def _written(levels: list[_Level]) -> Labelled:
    """The symbols and values of whole levels."""
    sizes: list[Array] = [np.empty(0, np.int64)] * len(levels)
    values = np.empty(0, np.int64)
    for at in reversed(range(len(levels))):
        level = levels[at]
        below = sizes[at + 1] if at + 1 < len(levels) else np.empty(0, np.int64)
        operation = level.arguments > 0
        size, value = np.ones(len(level.tree), np.int64), level.digit.copy()
        if operation.any():
            counts = level.arguments[operation]
            size[operation] = 2 + np.add.reduceat(below, _firsts(counts))
            value[operation] = _evaluated(level.operator[operation], counts, values)
        sizes[at], values = size, value
    lengths = sizes[0]
    symbols = np.empty(int(lengths.sum()), np.uint8)
    starts = _firsts(lengths)
    for level, size, below in zip(levels, sizes, (*sizes[1:], np.empty(0, np.int64)), strict=True):
        operation = level.arguments > 0
        symbols[starts[~operation]] = DIGIT + level.digit[~operation]
        symbols[starts[operation]] = OPERATORS[0] + level.operator[operation]
        symbols[starts[operation] + size[operation] - 1] = CLOSE
        counts = level.arguments[operation]
        if len(counts):
            before = _firsts(below)  # within a part its children lie one after another, behind its operator
            starts = np.repeat(starts[operation] + 1 - before[_firsts(counts)], counts) + before
    return Labelled(symbols=symbols, lengths=lengths.astype(np.int32), values=values.astype(np.uint8))


def _firsts(counts: Array) -> Array:
    """Where each run begins, of runs of that many."""
    return np.cumsum(counts) - counts


def _evaluated(operator: Array, counts: Array, values: Array) -> Array:
    """Each operation of its own run of values."""
    firsts = _firsts(counts)
    run = np.repeat(np.arange(len(counts)), counts)
    ordered = np.sort(run * 10 + values) % 10  # each run's values, ascending
    middle = ordered[firsts + (counts - 1) // 2] + ordered[firsts + counts // 2]
    results = (
        ordered[firsts],
        ordered[firsts + counts - 1],
        middle // 2,
        np.add.reduceat(values, firsts) % 10,
    )
    return np.choose(operator, results)


def each(expressions: Labelled) -> Iterator[Array]:
    """The symbols of one after another."""
    yield from np.split(expressions.symbols, np.cumsum(expressions.lengths)[:-1])
