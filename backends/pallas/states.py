"""The states of linear and momentum attention at the borders of a sequence's segments."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from .. import by_distance
from .launch import Blocked, Tile, launch, one_part, shared, store_if, table, whole
from .plan import Plan
from .sums import groups_sum, in_head
from .tiles import Tiles

__all__ = ["States", "end_weights", "gradient_states", "key_value_states", "state_inputs"]

States = dict[str, jax.Array]
"""Float32 sums for each (batch, head) and segment: ``s`` and, with momentum, ``p`` [pairs, segments,
value_dim, head_dim], ``z`` [pairs, segments, head_dim]. Empty for a causal sequence in one segment."""


def key_value_states(plan: Plan, k: jax.Array, v: jax.Array) -> States:
    """Causal: what lies before each segment. Else the whole sequence's, as if of one segment."""
    if not plan.causal:
        return _total(_sums(plan, {"x": k, "y": v}, back=False))
    return _combined(plan, _sums(plan, {"x": k, "y": v}, back=False), back=False) if plan.segments > 1 else {}


def gradient_states(plan: Plan, q: jax.Array, do: jax.Array, den: jax.Array, delta: jax.Array) -> States:
    """Causal: the sums over the queries after each segment. Else over all, as if of one segment."""
    arrays = {"x": q, "y": do, "den": den, "delta": delta}
    if not plan.causal:
        return _total(_sums(plan, arrays, back=True))
    return _combined(plan, _sums(plan, arrays, back=True), back=True) if plan.segments > 1 else {}


def state_inputs(states: States, columns: int, axis: int) -> dict[str, Blocked]:
    """What a program is given of them: its segment's, in blocks of `axis`, which is 2 for value_dim and 3 for
    head_dim."""
    found = {name: one_part(x, columns, axis) for name, x in states.items() if name != "z"}
    if states:
        z = states["z"]
        found["z"] = one_part(z, columns if axis == 3 else z.shape[2], 2)
    return found


def end_weights(plan: Plan, rows: int) -> dict[str, Blocked]:
    """Eq 14's weight of each key, u(N - 1 - j), 0 past the last of the whole chunks. Empty without
    momentum."""
    if not plan.momentum:
        return {}
    n = plan.case.seq_len
    left = n - 1 - np.arange(-(-n // rows) * rows)
    return {"ends": table(jnp.asarray(by_distance.u(plan.case.spec.beta, left)))}


def _total(own: States) -> States:
    return {name: jnp.sum(x, 1, keepdims=True) for name, x in own.items()}


def _sums(plan: Plan, arrays: Mapping[str, jax.Array], *, back: bool) -> States:
    """The sums over one segment that a state is made of, with x = k and y = v (eq 8, 13 and 14)::

        z = sum_j phi(x_j);  S = sum_j u(m_j) phi(x_j) y_j^T;  P = sum_j beta^(m_j) phi(x_j) y_j^T

    with ``u(m) = 1 - beta^(m+1)`` and m_j the positions from j to the last of the segment (eq 13) or, not
    causal, of the sequence (eq 14, which needs no P). Without momentum u = 1 (eq 8) and there is no P. Chunks
    so far away that beta^m no longer counts cost what linear attention's do.

    `back` makes the states that go back in time: x = q, ``y_i = gain do_i / den_i``, each phi(x_i) in z is
    multiplied by delta_i, and m_i are the positions from the segment's first to i; not causal, u = 1.

    Tiling: one program a block of value_dim, (batch, head) and segment, over chunks of `rows` positions; S
    and P, transposed, [block, head_dim] and z in groups [groups, head_dim] stay in float32 registers.
    Causal, no program is started for the last segment (`back`: the first), whose state nobody asks for.
    Traffic: x and y once, n (head_dim blocks + value_dim) itemsize bytes a (batch, head), `back` 8 n more;
    the states, 4 head_dim value_dim bytes each, once.
    """
    tiles, numbers, n, rows = plan.tiles, plan.numbers, plan.case.seq_len, plan.tiles.rows
    momentum, chunks, skip = plan.momentum and (plan.causal or not back), plan.segment // rows, 0
    weights: dict[str, Blocked] = {}
    near = 0
    if plan.causal:
        skip = int(back)
        if momentum:
            near = min(chunks, math.ceil(by_distance.counting(plan.case.spec.beta) / rows))
            away = np.arange(near * rows) if back else np.arange(near * rows - 1, -1, -1)
            weights = {
                "u": table(jnp.asarray(by_distance.u(plan.case.spec.beta, away))),
                "b": table(jnp.asarray(by_distance.keep(plan.case.spec.beta, away))),
            }
    elif momentum:
        weights = end_weights(plan, rows)
    whole_chunks = n % rows == 0 or (plan.causal and not back)  # none of the last segment's, where it matters

    def states(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        first = (pl.program_id(2) + skip) * plan.segment

        def add(index: Any, own: Any, *, weighted: bool, origin: int) -> Any:
            S, P, Z = own
            tile = Tile(first + index * rows, rows, None if whole_chunks else n)
            phi = in_head(numbers.feature(tile.load(x["x"])), plan.case.head_dim)  # [rows, head_dim]
            values = tile.load(x["y"])  # [rows, block]
            if back:
                values = values * (plan.gain / tile.load(x["den"], other=1.0))[:, None]
                Z += groups_sum(phi * tile.load(x["delta"])[:, None], tiles.groups)
            else:
                phi = tile.cut(phi)  # phi(0) = 1
                Z += groups_sum(phi, tiles.groups)
            phi = numbers.operand(phi)
            if not weighted:
                return S + numbers.product(numbers.operand(values), phi, "aTb"), P, Z
            here = Tile((index - origin) * rows if plan.causal else tile.start, rows)
            u = here.load(x["u" if plan.causal else "ends"])
            S = S + numbers.product(numbers.operand(values * u[:, None]), phi, "aTb")
            if P is not None:
                b = here.load(x["b"])
                P = P + numbers.product(numbers.operand(values * b[:, None]), phi, "aTb")
            return S, P, Z

        stop: Any = chunks
        if n % plan.segment and not (plan.causal and not back):
            stop = lax.min(jnp.int32(chunks), lax.div(n - first + rows - 1, jnp.int32(rows)))
        runs: list[tuple[Any, Any, bool]]
        if not plan.causal:
            runs = [(0, stop, momentum)]
        elif back:
            border = near if isinstance(stop, int) else lax.min(jnp.int32(near), stop)
            runs = [(0, border, True), (border, stop, False)]
        else:
            runs = [(0, chunks - near, False), (chunks - near, chunks, True)]
        S = jnp.zeros((tiles.value_dim, tiles.head_dim), jnp.float32)
        own = (S, S if momentum and plan.causal else None, jnp.zeros((tiles.groups, tiles.head_dim), S.dtype))
        for start, end, weighted in runs:
            if (isinstance(end, int) and isinstance(start, int) and start == end) or (
                weighted and not weights
            ):
                continue
            step = functools.partial(add, weighted=weighted, origin=0 if back else chunks - near)
            own = lax.fori_loop(start, end, step, own)
        S, P, Z = own
        out["s"][...] = S
        if P is not None:
            out["p"][...] = P
        z = jnp.sum(Z, 0)
        if tiles.blocks == 1:
            out["z"][...] = z
        else:
            store_if(pl.program_id(0) == 0, out["z"], z)

    count = plan.segments - plan.causal
    head_dim, value_dim = plan.dims
    square = jax.ShapeDtypeStruct((plan.pairs, count, value_dim, head_dim), jnp.float32)
    outputs = {"s": one_part(square, tiles.value_dim, 2)}
    if momentum and plan.causal:
        outputs["p"] = one_part(square, tiles.value_dim, 2)
    outputs["z"] = one_part(jax.ShapeDtypeStruct((plan.pairs, count, head_dim), jnp.float32), head_dim, 2)
    inputs = {
        name: shared(array, tiles.value_dim) if name == "y" else whole(array)
        for name, array in arrays.items()
    }
    grid = (tiles.blocks, plan.pairs, count)
    return launch(states, grid, inputs | weights, outputs, tiles, compiled=numbers.compiled)


AT_ONCE = 8
"""Segments whose states are loaded together, since what takes the time is waiting for them."""
COMBINED = 512
"""Elements of a state that one program puts together, 4 a thread."""
SMALL = Tiles(rows=0, head_dim=0, value_dim=0, blocks=1, warps=4, stages=1)
"""A kernel without tiles."""


def _combined(plan: Plan, own: States, *, back: bool) -> States:
    """Puts the segments' sums together: each segment's state becomes that of all segments before it (`back`:
    after it), by ``S <- S + c(L) P + S';  P <- beta^L P + P';  z <- z + z'`` for segments of L positions.

    Tiling: one program a (batch, head) and `COMBINED` elements of S and P; the first does z too.
    Traffic: every sum once in, every state once out.
    """
    count, segments, beta = plan.segments - 1, plan.segments, plan.case.spec.beta
    flat = {name: x.reshape(plan.pairs, count, -1) for name, x in own.items()}
    size = min(COMBINED, flat["s"].shape[2])
    carry, keep = float(by_distance.carry(beta, plan.segment)), float(by_distance.keep(beta, plan.segment))
    momentum = "p" in own

    def combine(x: Mapping[str, Any], out: Mapping[str, Any]) -> None:
        S = jnp.zeros((1, size), jnp.float32)
        P = S
        z = jnp.zeros((1, plan.tiles.head_dim), jnp.float32)
        owns_z = jnp.broadcast_to(pl.program_id(0) == 0, z.shape)

        def load(name: str, member: int) -> jax.Array:
            at = x[name].at[pl.ds(count - 1 - member if back else member, 1), :]
            return plgpu.load(at, mask=owns_z, other=0.0) if name == "z" else plgpu.load(at)

        for group in range(0, segments, AT_ONCE):
            members = range(group, min(group + AT_ONCE, segments))
            found = [{name: load(name, member) for name in x} for member in members if member < count]
            for offset, member in enumerate(members):
                slot = pl.ds(segments - 1 - member if back else member, 1)
                out["s"][slot, :] = S
                if momentum:
                    out["p"][slot, :] = P
                plgpu.store(out["z"].at[slot, :], z, mask=owns_z)
                if member < count:
                    S, z = S + found[offset]["s"], z + found[offset]["z"]
                    if momentum:
                        S, P = S + carry * P, keep * P + found[offset]["p"]

    inputs = {name: whole(x) if name == "z" else shared(x, size) for name, x in flat.items()}
    shapes = {
        name: jax.ShapeDtypeStruct((plan.pairs, segments, x.shape[2]), x.dtype) for name, x in flat.items()
    }
    outputs = {name: whole(x) if name == "z" else shared(x, size) for name, x in shapes.items()}
    grid = (flat["s"].shape[2] // size, plan.pairs, 1)
    after = launch(combine, grid, inputs, outputs, SMALL, compiled=plan.numbers.compiled)
    return {name: x.reshape(plan.pairs, segments, *own[name].shape[2:]) for name, x in after.items()}
