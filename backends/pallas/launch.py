"""How a kernel is called: the blocks of its arrays, and the masks of its tiles.

Every grid is (blocks, pairs, parts): the programs that share a chunk's columns, the (batch, head) pairs, and
the parts of the sequence. A program sees its own pair's arrays whole, along the sequence; it loads tiles of
them, which is how Pallas leaves the pipelining of loads to Triton.
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

__all__ = ["Blocked", "Tile", "launch", "shared", "states", "table", "whole"]

Blocked = tuple[Any, pl.BlockSpec]
"""An array (for an output its shape and dtype), and what of it a program sees."""


def whole(array: Any) -> Blocked:
    """[pairs, positions, ...]: all of the program's pair."""
    _, *sizes = array.shape
    zeros = (0,) * len(sizes)
    return array, pl.BlockSpec((None, *sizes), lambda block, pair, part: (pair, *zeros))


def shared(array: Any, columns: int) -> Blocked:
    """[pairs, positions, columns]: the program's pair, and its own block of columns."""
    return array, pl.BlockSpec((None, array.shape[1], columns), lambda block, pair, part: (pair, 0, block))


def states(array: Any, columns: int, axis: int, part: Callable[[Any], Any] = lambda part: part) -> Blocked:
    """[pairs, parts, value_dim, head_dim] or [pairs, parts, head_dim]: one part's, and of `axis` the program's
    own block of columns."""
    sizes: list[int | None] = [None, None, *array.shape[2:]]
    sizes[axis] = columns

    def place(block: Any, pair: Any, here: Any) -> tuple[Any, ...]:
        return (pair, part(here), *(block if i == axis else 0 for i in range(2, len(sizes))))

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
    """Runs it: the kernel gets references to its inputs and its outputs, each by name."""

    def body(*references: Any) -> None:
        names = [*inputs, *outputs]
        named = dict(zip(names, references, strict=True))
        kernel({name: named[name] for name in inputs}, {name: named[name] for name in outputs})

    body.__name__ = kernel.__name__
    results = pl.pallas_call(
        body,
        grid=grid,
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[spec for _, spec in outputs.values()],
        out_shape=[shape for shape, _ in outputs.values()],
        interpret=not compiled,
        compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    )(*(array for array, _ in inputs.values()))
    return dict(zip(outputs, results, strict=True))


class Tile:
    """So many rows of the arrays of one pair, from `start` on; those at `end` or past it are none.

    Args:
        start: the first row, a traced whole number.
        size: how many.
        end: of the rows that are real; None where all of them are, and no load or store has a mask.
    """

    def __init__(self, start: Any, size: int, end: Any = None) -> None:
        self.slice = pl.ds(start, size)
        self._real = None if end is None else start + lax.iota(jnp.int32, size) < end

    def load(self, reference: Any, other: float = 0.0) -> jax.Array:
        """[size, columns], or [size] of an array of one number a row; `other` where there is no row."""
        at = reference.at[self.slice] if len(reference.shape) == 1 else reference.at[self.slice, :]
        if self._real is None:
            return plgpu.load(at)
        return plgpu.load(at, mask=self._mask(at.shape), other=other)

    def store(self, reference: Any, value: jax.Array, only: Any = None) -> None:
        """The other way round, in the array's dtype; not at all where `only` is given and false."""
        at = reference.at[self.slice] if len(reference.shape) == 1 else reference.at[self.slice, :]
        mask = None if self._real is None else self._mask(at.shape)
        if only is not None:
            mask = jnp.broadcast_to(only, at.shape) if mask is None else mask & only
        plgpu.store(at, value.astype(reference.dtype), mask=mask)

    def _mask(self, shape: tuple[int, ...]) -> jax.Array:
        real = self._real if len(shape) == 1 else self._real[:, None]
        return jnp.broadcast_to(real, shape)
