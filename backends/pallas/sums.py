"""Sums over the rows of a tile, for z: what lies in one thread is added there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["first_row", "groups_sum", "in_head"]


def groups_sum(x: jax.Array, groups: int) -> jax.Array:
    """The sums [groups, columns] of the rows of x [rows, columns] that are `groups` apart: with as many
    groups as rows that lie in different threads at once, a sum that no thread needs another for."""
    return jnp.sum(jnp.reshape(x, (x.shape[0] // groups, groups, x.shape[1])), 0)


def first_row(x: jax.Array, groups: int) -> jax.Array:
    """The sums in groups, [groups, columns], of x [columns]: all of it is in the first."""
    rows = lax.broadcasted_iota(jnp.int32, (groups, x.shape[0]), 0)
    return jnp.where(rows == 0, jnp.broadcast_to(x[None, :], rows.shape), 0.0)


def in_head(phi: jax.Array, head_dim: int) -> jax.Array:
    """A tile of phi, [rows, columns], with 0 in the columns that pad head_dim."""
    if phi.shape[1] == head_dim:
        return phi
    return jnp.where(lax.broadcasted_iota(jnp.int32, phi.shape, 1) < head_dim, phi, 0.0)
