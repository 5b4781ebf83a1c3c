"""How a kernel is called: the blocks of its arrays, and the masks of its tiles.

Every grid is (blocks, pairs, parts): the programs that share a chunk's columns, the (batch, head) pairs, and
the parts of the sequence. A program sees its own pair's arrays whole along the sequence and loads tiles of
them, which leaves the pipelining of its loads to Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from .tiles import Tiles

__all__ = ["Blocked", "Tile", "launch", "one_part", "shared", "store_if", "table", "whole"]

Blocked = tuple[Any, pl.BlockSpec]
"""An array (for an output its shape and dtype), and what of it a program sees."""


def whole(array: Any) -> Blocked:
    """[pairs, positions, ...]: all of the program's pair."""
    _, *sizes = array.shape
    zeros = (0,) * len(sizes)
    return array, pl.BlockSpec((None, *sizes), lambda block, pair, part: (pair, *zeros))


def shared(array: Any, columns: int) -> Blocked:
    """[pairs, positions, columns]: of the program's pair the program's own block of columns."""
    return array, pl.BlockSpec((None, array.shape[1], columns), lambda block, pair, part: (pair, 0, block))


def one_part(array: Any, columns: int, axis: int) -> Blocked:
    """[pairs, parts, ...]: of the program's part (of the only one, where there is one) the block of
    `axis`."""
    sizes: list[int | None] = [None, None, *array.shape[2:]]
    sizes[axis] = columns
    only, split = array.shape[1] == 1, columns < array.shape[axis]

    def place(block: Any, pair: Any, part: Any) -> tuple[Any, ...]:
        blocks = (block if split and i == axis else 0 for i in range(2, len(sizes)))
        return (pair, 0 if only else part, *blocks)

    return array, pl.BlockSpec(tuple(sizes), place)


def table(array: Any) -> Blocked:
    """All of an array, for every program."""
    zeros = (0,) * array.ndim
    return array, pl.BlockSpec(array.shape, lambda block, pair, part: zeros)


def launch(
    kernel: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    grid: tuple[int, int, int],
    inputs: Mapping[str, Blocked],
    outputs: Mapping[str, Blocked],
    tiles: Tiles,
    *,
    compiled: bool,
) -> dict[str, jax.Array]:
    """Runs it, compiled for a card or interpreted; it gets references to inputs and outputs, each by name."""

    def body(*references: Any) -> None:
        given = dict(zip(inputs, references, strict=False))
        kernel(given, dict(zip(outputs, references[len(given) :], strict=True)))

    body.__name__ = kernel.__name__
    results = pl.pallas_call(
        body,
        grid=grid,
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[spec for _, spec in outputs.values()],
        out_shape=[shape for shape, _ in outputs.values()],
        interpret=not compiled,
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        name=kernel.__name__,
    )(*(array for array, _ in inputs.values()))
    return dict(zip(outputs, results, strict=True))


class Tile:
    """So many rows of the arrays of one pair, from `start` on; those at `end` or past it are none.

    Args:
        start: the first row, a traced whole number.
        size: how many.
        end: of the rows that are real; None where all of them are, and no load or store has a mask.
    """

    def __init__(self, start: Any, size: int, end: int | None = None) -> None:
        self.start, self.size = start, size
        self.rows: jax.Array = start + lax.iota(jnp.int32, size)
        """Their numbers, [size]."""
        self.real: jax.Array | None = None if end is None else self.rows < end
        """Which are, [size]; None where all of them are."""

    def load(self, reference: Any, other: float = 0.0) -> jax.Array:
        """[size, columns], or [size] of an array of one number a row; `other` where there is no row."""
        at = self._at(reference)
        if self.real is None:
            return plgpu.load(at)
        return plgpu.load(at, mask=_spread(self.real, at.shape), other=other)

    def store(self, reference: Any, value: jax.Array, only: jax.Array | None = None) -> None:
        """The other way round, in the array's dtype; not at all where `only` is given and false."""
        at = self._at(reference)
        mask = None if self.real is None else _spread(self.real, at.shape)
        if only is not None:
            mask = jnp.broadcast_to(only, at.shape) if mask is None else mask & only
        plgpu.store(at, value.astype(reference.dtype), mask=mask)

    def cut(self, x: jax.Array) -> jax.Array:
        """A tile x [size, columns] with 0 in the rows that are none."""
        return x if self.real is None else jnp.where(_spread(self.real, x.shape), x, 0.0)

    def _at(self, reference: Any) -> Any:
        rows = pl.ds(self.start, self.size)
        return reference.at[rows] if len(reference.shape) == 1 else reference.at[rows, :]


def store_if(condition: jax.Array, reference: Any, value: jax.Array) -> None:
    """Stores all of an array, or nothing."""
    plgpu.store(reference.at[...], value, mask=jnp.broadcast_to(condition, value.shape))


def _spread(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return rows if len(shape) == 1 else jnp.broadcast_to(rows[:, None], shape)
