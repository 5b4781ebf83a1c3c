"""The states of linear and momentum attention at the borders of a sequence's segments."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .launch import Launch
from .maps import both, feature_map, operand, product, real_keys, row_sum
from .plan import Cut, Plan
from .tiles import Tiles

__all__ = ["States", "gradient_states", "key_value_states"]


@triton.jit(do_not_specialize=["n", "heads", "segment", "segments", "last", "skip"])
def states(
    x, y, den, delta, lengths, s_out, p_out, z_out, u, b, last, n, heads, segment, segments, skip, gain,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, TO_END: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, NV: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The sums over one segment that a state is made of, with x = k and y = v (eq 8, 13 and 14)::

        z = sum_j phi(x_j);  S = sum_j u(m_j) phi(x_j) y_j^T;  P = sum_j beta^(m_j) phi(x_j) y_j^T

    with ``u(m) = 1 - beta^(m+1)`` and m_j the positions from j to the last of the sequence (`TO_END`: eq 14,
    which needs no P) or of the segment (eq 13). Without `MOMENTUM` u = 1 (eq 8) and there is no P. `lengths`
    ends each sequence's keys.

    `GRADIENT` makes the states that go back in time: x = q, ``y_i = gain do_i / den_i``, each phi(x_i) in z
    is multiplied by delta_i, and m_i are the positions from the segment's first to i.

    Tiling: one program a (batch, head, block of BV values) and segment, over chunks of BT positions; S and P
    [BD, BV] and z [BD] stay in float32 registers.
    Traffic: x and y once, n (head_dim NV + value_dim) itemsize bytes a (batch, head); the states,
    4 BD BV bytes each, once.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    pid, part = tl.program_id(0), tl.program_id(1) + skip
    pair, first = (pid // NV).to(tl.int64), part * segment
    head = pair * n + first
    d, e, t = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV), tl.arange(0, BT)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    x += head * D
    x_tile = t[None, :] * D + d[:, None]  # [BD, BT]
    y += head * DV
    y_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    if GRADIENT:
        den += head
        delta += head
    left = real_keys(lengths, pair, heads, n) - first
    length = tl.minimum(segment, left)
    end = left if TO_END else segment
    S = tl.full([BD, BV], 0.0, tl.float32)
    P = tl.full([BD, BV], 0.0, tl.float32)
    z = tl.full([BD], 0.0, tl.float32)
    for start in range(0, length, BT):
        real = t < length - start
        xT = tl.load(x + x_tile, mask=both(real[None, :], (d < D)[:, None], ALL_D), other=0.0)
        values = tl.load(y + y_tile, mask=both(real[:, None], (e < DV)[None, :], ALL_V), other=0.0)
        phi = feature_map(xT)  # [BD, BT]
        # phi(0) = 1, so padding has to be cut out after the map. Back in time y and delta are 0 there, and a
        # segment that another follows is full.
        if not ALL_D or TO_END or lengths is not None:
            phi = tl.where(both(real[None, :], (d < D)[:, None], ALL_D), phi, 0.0)
        if GRADIENT:
            values = values * (gain / tl.load(den + start + t, mask=real, other=1.0))[:, None]
            z += row_sum(phi * tl.load(delta + start + t, mask=real, other=0.0)[None, :], 1)
            away = start + t  # [BT], positions between the state's border and the row
        else:
            z += row_sum(phi, 1)
            away = end - 1 - start - t
        phi = operand(phi, DOT)
        if MOMENTUM:
            away = tl.minimum(tl.maximum(away, 0), last)
            S = product(phi, operand(values * tl.load(u + away)[:, None], DOT), S, DOT)
            if not TO_END:
                P = product(phi, operand(values * tl.load(b + away)[:, None], DOT), P, DOT)
        else:
            S = product(phi, operand(values, DOT), S, DOT)
        x += BT * D
        y += BT * DV
    slot = pair * segments + part
    tile = d[:, None] * (NV * BV) + e[None, :]
    tl.store(s_out + slot * (BD * NV * BV) + tile, S)
    if MOMENTUM and not TO_END:
        tl.store(p_out + slot * (BD * NV * BV) + tile, P)
    if pid % NV == 0:
        tl.store(z_out + slot * BD + d, z)


@triton.jit(do_not_specialize=["segments"])
def combine(
    s, p, z, segments, carry, keep,
    MOMENTUM: tl.constexpr, BACK: tl.constexpr, TOTAL: tl.constexpr, SIZE: tl.constexpr, BD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Puts the segments' states together, in place: each becomes that of all segments before it (`BACK`:
    after it), by ``S <- S + c(L) P + S';  P <- beta^L P + P';  z <- z + z'`` for segments of L positions.
    With `TOTAL` the first becomes the sum of all.

    Tiling: one program a (batch, head) and BLOCK elements of S and P, one more for z.
    Traffic: every state once in and once out.
    """
    pair, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    filled = segments if TOTAL else segments - 1
    if block * BLOCK < SIZE:
        at = block * BLOCK + tl.arange(0, BLOCK)
        sums = s + pair * segments * SIZE + at
        if MOMENTUM:
            swings = p + pair * segments * SIZE + at
        S = tl.full([BLOCK], 0.0, tl.float32)
        P = tl.full([BLOCK], 0.0, tl.float32)
        for index in range(segments):
            slot = (segments - 1 - index if BACK else index) * SIZE
            mask = tl.full([BLOCK], index, tl.int32) < filled
            own = tl.load(sums + slot, mask=mask, other=0.0)
            if not TOTAL:
                tl.store(sums + slot, S)
            if MOMENTUM:
                own_swing = tl.load(swings + slot, mask=mask, other=0.0)
                tl.store(swings + slot, P)
                S += carry * P
                P = keep * P + own_swing
            S += own
        if TOTAL:
            tl.store(sums, S)
    else:
        d = tl.arange(0, BD)
        keys = z + pair * segments * BD + d
        Z = tl.full([BD], 0.0, tl.float32)
        for index in range(segments):
            slot = (segments - 1 - index if BACK else index) * BD
            own_keys = tl.load(keys + slot, mask=tl.full([BD], index, tl.int32) < filled, other=0.0)
            if not TOTAL:
                tl.store(keys + slot, Z)
            Z += own_keys
        if TOTAL:
            tl.store(keys, Z)


COMBINED = 1024
"""Elements of a state that one program of `combine` takes."""


class States(NamedTuple):
    """Float32 sums, a slot for each (batch, head) and segment; dims padded as in the tiles."""

    s: torch.Tensor | None
    """[pairs, segments, head_dim, value_dim]"""
    p: torch.Tensor | None
    """As s; None where there is no momentum, or all is weighted to the sequence's end."""
    z: torch.Tensor | None
    """[pairs, segments, head_dim]"""


NO_STATES = States(None, None, None)
"""Of a causal sequence in one segment."""


def key_value_states(plan: Plan, launch: Launch, k: torch.Tensor, v: torch.Tensor) -> States:
    """Causal: what lies before each segment, in its slot. Else the whole sequence's, in slot 0."""
    return _states(plan, launch, plan.keys, k, v, None, None, back=False)


def gradient_states(
    plan: Plan, launch: Launch, q: torch.Tensor, do: torch.Tensor, den: torch.Tensor, delta: torch.Tensor
) -> States:
    """Causal: the sums over the queries after each segment, in its slot. Else over all, in slot 0."""
    return _states(plan, launch, plan.queries, q, do, den, delta, back=True)


def _states(
    plan: Plan,
    launch: Launch,
    cut: Cut,
    x: torch.Tensor,
    y: torch.Tensor,
    den: torch.Tensor | None,
    delta: torch.Tensor | None,
    *,
    back: bool,
) -> States:
    case, tiles, segments = plan.case, plan.tiles, cut.segments
    causal = case.spec.causal
    if causal and segments == 1:
        return NO_STATES
    # Without a causal mask a key's weight depends on its own position alone (eq 14), not on the query's.
    momentum = case.spec.kind == "momentum" and (causal or not back)
    pairs = case.batch * case.heads
    shape = (pairs, segments, tiles.head_dim, tiles.value_blocks * tiles.value_dim)
    s = torch.empty(shape, dtype=torch.float32, device=x.device)
    p = torch.empty(shape, dtype=torch.float32, device=x.device) if momentum and causal else None
    z = torch.empty(shape[:3], dtype=torch.float32, device=x.device)
    skip = int(causal and back)  # nobody goes on from the last segment, nor back from the first
    launch(
        states,
        (pairs * tiles.value_blocks, segments - causal),
        (
            *(x, y, den, delta, None if back else plan.lengths, s, p, z, plan.u, plan.b, plan.last),
            *(cut.length, case.heads, cut.segment, segments, skip, plan.gain),
        ),
        {"GRADIENT": back, "MOMENTUM": momentum, "TO_END": not causal, **plan.constants},
        tiles,
    )
    if segments > 1:
        size = shape[2] * shape[3]
        block = min(COMBINED, size)
        over = plan.decay(cut.segment)
        launch(
            combine,
            (pairs, size // block + 1),
            (s, p, z, segments, over.carry, over.keep),
            {"MOMENTUM": p is not None, "BACK": back, "TOTAL": not causal}
            | {"SIZE": size, "BD": tiles.head_dim, "BLOCK": block},
            SMALL,
        )
    return States(s, p, z)


SMALL = Tiles(rows=0, keys=0, head_dim=0, value_dim=0, value_blocks=1, warps=4, stages=1)
"""A kernel without tiles."""
