"""The states of linear and momentum attention at the borders of a sequence's segments."""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import both, feature_map, groups_sum, operand, product, real_keys, row_sum, rows_before
from .plan import Cut, Plan, once_a_plan
from .tiles import Tiles

__all__ = ["States", "between", "gradient_states", "key_value_states", "segment_states", "whole"]


@triton.jit
def added_up(
    S, P, Z, x, y, den, delta, u, b, last, begin, stop, length, end, gain,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, SWINGS: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BT: tl.constexpr, GROUPS: tl.constexpr, WHOLE: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    DOT: tl.constexpr, d, e,
):  # fmt: skip
    """S, P and Z with the chunks from `begin` to `stop` added. Without `MOMENTUM` every weight is 1, and
    without `SWINGS` nothing is added to P."""
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    t = tl.arange(0, BT)
    x_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    y_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    x += begin.to(tl.int64) * D
    y += begin.to(tl.int64) * DV
    for start in range(begin, stop, BT):
        real = rows_before(t, length - start, WHOLE)
        rows = tl.load(x + x_tile, mask=both(real[:, None], (d < D)[None, :], ALL_D), other=0.0)
        values = tl.load(y + y_tile, mask=both(real[:, None], (e < DV)[None, :], ALL_V), other=0.0)
        phi = feature_map(rows)  # [BT, BD]
        # phi(0) = 1, so padding has to be cut out after the map; back in time y and delta are 0 there.
        if not ALL_D or not WHOLE:
            phi = tl.where(both(real[:, None], (d < D)[None, :], ALL_D), phi, 0.0)
        if GRADIENT:
            values = values * (gain / tl.load(den + start + t, mask=real, other=1.0))[:, None]
            own = tl.load(delta + start + t, mask=real, other=0.0)
            Z += groups_sum(phi * own[:, None], GROUPS)
            away = start + t  # [BT], positions between the state's border and the row
        else:
            Z += groups_sum(phi, GROUPS)
            away = end - 1 - start - t
        phi = operand(phi, DOT)
        if MOMENTUM:
            away = tl.minimum(tl.maximum(away, 0), last)
            S = product(tl.trans(operand(values * tl.load(u + away)[:, None], DOT)), phi, S, DOT)
            if SWINGS:
                P = product(tl.trans(operand(values * tl.load(b + away)[:, None], DOT)), phi, P, DOT)
        else:
            S = product(tl.trans(operand(values, DOT)), phi, S, DOT)
        x += BT * D
        y += BT * DV
    return S, P, Z


@triton.jit(do_not_specialize=["n", "heads", "segment", "segments", "last", "skip"])
def states(
    x, y, den, delta, lengths, s_out, p_out, z_out, u, b, last, n, heads, segment, segments, skip, gain,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, TO_END: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, NV: tl.constexpr, WHOLE: tl.constexpr,
    GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The sums over one segment that a state is made of, with x = k and y = v (eq 8, 13 and 14)::

        z = sum_j phi(x_j);  S = sum_j u(m_j) phi(x_j) y_j^T;  P = sum_j beta^(m_j) phi(x_j) y_j^T

    with ``u(m) = 1 - beta^(m+1)`` and m_j the positions from j to the last of the sequence (`TO_END`: eq 14,
    which needs no P) or of the segment (eq 13). Without `MOMENTUM` u = 1 (eq 8) and there is no P. `lengths`
    ends each sequence's keys. Where beta^m no longer counts, which is at m = `last`, u is 1 and nothing is
    added to P: chunks that far away cost what linear attention's do.

    `GRADIENT` makes the states that go back in time: x = q, ``y_i = gain do_i / den_i``, each phi(x_i) in z
    is multiplied by delta_i, and m_i are the positions from the segment's first to i.

    Tiling: one program a (batch, head, block of BV values) and segment, over chunks of BT positions; S and P,
    transposed, [BV, BD] and z in GROUPS sums [GROUPS, BD] stay in float32 registers.
    Traffic: x and y once, n (head_dim NV + value_dim) itemsize bytes a (batch, head); the states,
    4 BD BV bytes each, once.
    """
    pid, part = tl.program_id(0), tl.program_id(1) + skip
    pair, first = (pid // NV).to(tl.int64), part * segment
    head = pair * n + first
    d, e = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    x += head * D
    y += head * DV
    if GRADIENT:
        den += head
        delta += head
    left = real_keys(lengths, pair, heads, n) - first
    length = tl.minimum(segment, left)
    end = left if TO_END else tl.minimum(segment, n - first)
    S = tl.full([BV, BD], 0.0, tl.float32)
    P = tl.full([BV, BD], 0.0, tl.float32)
    Z = tl.full([GROUPS, BD], 0.0, tl.float32)
    begin = length * 0  # a tensor, as border is
    if MOMENTUM:
        if GRADIENT:
            border = tl.minimum((last + BT - 1) // BT * BT, length)
        else:
            border = tl.minimum(tl.maximum(end - last, 0) // BT * BT, tl.maximum(length, 0))
        S, P, Z = added_up(
            S, P, Z, x, y, den, delta, u, b, last, begin, border, length, end, gain,
            GRADIENT, GRADIENT, not TO_END, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
        )  # fmt: skip
        S, P, Z = added_up(
            S, P, Z, x, y, den, delta, u, b, last, border, length, length, end, gain,
            GRADIENT, not GRADIENT, not TO_END, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
        )  # fmt: skip
    else:
        S, P, Z = added_up(
            S, P, Z, x, y, den, delta, u, b, last, begin, length, length, end, gain,
            GRADIENT, False, False, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
        )  # fmt: skip
    slot = pair * segments + part
    tile = e[:, None] * BD + d[None, :]  # [BV, BD]
    tl.store(s_out + slot * (NV * BV * BD) + tile, S)
    if MOMENTUM and not TO_END:
        tl.store(p_out + slot * (NV * BV * BD) + tile, P)
    if pid % NV == 0:
        tl.store(z_out + slot * BD + d, row_sum(Z, 0))


@triton.jit
def row_of(x, row, AT_ONCE: tl.constexpr):
    """One row [columns] of x [AT_ONCE, columns], every row of which lies in each thread."""
    return row_sum(tl.where(tl.arange(0, AT_ONCE)[:, None] == row, x, 0.0), 0)


@triton.jit(do_not_specialize=["segments"])
def combine(
    s, p, z, s_first, p_first, z_first, s_whole, p_whole, z_whole, segments, carry, keep, last_carry,
    last_keep, MOMENTUM: tl.constexpr, BACK: tl.constexpr, TOTAL: tl.constexpr, SIZE: tl.constexpr,
    BD: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Puts the segments' states together, in place: each becomes that of all segments before it (`BACK`:
    after it), by ``S <- S + c(L) P + S';  P <- beta^L P + P';  z <- z + z'`` for segments of L positions, of
    which the last may have fewer. What comes before them all (`BACK`: after them) is in `s_first`, `p_first`
    and `z_first`, or nothing. With `TOTAL` they stay as they are, and their sum goes to `s_whole`, `p_whole`
    and `z_whole`.

    Tiling: one program a (batch, head) and BLOCK elements of S and P, and as many programs as z has blocks;
    the states of AT_ONCE segments are loaded together, since what takes the time is waiting for them.
    Traffic: every state once in and once out.
    """
    pair, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    states_blocks: tl.constexpr = SIZE // BLOCK
    if block < states_blocks:
        at = block * BLOCK + tl.arange(0, BLOCK)
        combined(
            s + pair * segments * SIZE, p + pair * segments * SIZE if MOMENTUM else p, s_first, p_first,
            s_whole, p_whole, pair, at, segments, carry, keep, last_carry, last_keep, SIZE, MOMENTUM, BACK,
            TOTAL, BLOCK, AT_ONCE,
        )  # fmt: skip
    else:
        at = (block - states_blocks) * BLOCK + tl.arange(0, BLOCK)
        combined(
            z + pair * segments * BD, p, z_first, None, z_whole, None, pair, at, segments, carry, keep,
            last_carry, last_keep, BD, False, BACK, TOTAL, BLOCK, AT_ONCE,
        )  # fmt: skip


@triton.jit
def combined(
    s, p, s_first, p_first, s_whole, p_whole, pair, at, segments, carry, keep, last_carry, last_keep,
    SIZE: tl.constexpr, MOMENTUM: tl.constexpr, BACK: tl.constexpr, TOTAL: tl.constexpr, BLOCK: tl.constexpr,
    AT_ONCE: tl.constexpr,
):  # fmt: skip
    """See `combine`: the elements `at` of sums of SIZE."""
    filled = segments if TOTAL else segments - 1
    S = tl.full([BLOCK], 0.0, tl.float32)
    P = tl.full([BLOCK], 0.0, tl.float32)
    own = pair * SIZE + at
    if s_first is not None:
        S += tl.load(s_first + own, mask=at < SIZE, other=0.0)
        if MOMENTUM:
            P += tl.load(p_first + own, mask=at < SIZE, other=0.0)
    rows = tl.arange(0, AT_ONCE)[:, None]
    for start in range(0, segments, AT_ONCE):
        index = start + rows
        slot = segments - 1 - index if BACK else index
        place = slot * SIZE + at[None, :]  # [AT_ONCE, BLOCK]
        there = (index < segments) & (at < SIZE)[None, :]
        taken = (index < filled) & (at < SIZE)[None, :]
        sums = tl.load(s + place, mask=taken, other=0.0)
        if MOMENTUM:
            swings = tl.load(p + place, mask=taken, other=0.0)
        before, swings_before = sums, sums
        for row in tl.static_range(AT_ONCE):
            before = tl.where(rows == row, S[None, :], before)
            if MOMENTUM:
                swings_before = tl.where(rows == row, P[None, :], swings_before)
                at_last = start + row == (0 if BACK else segments - 1)
                past = start + row >= segments
                S += tl.where(past, 0.0, tl.where(at_last, last_carry, carry)) * P
                P = tl.where(past, 1.0, tl.where(at_last, last_keep, keep)) * P
                P += row_of(swings, row, AT_ONCE)
            S += row_of(sums, row, AT_ONCE)
        if not TOTAL:
            tl.store(s + place, before, mask=there)
            if MOMENTUM:
                tl.store(p + place, swings_before, mask=there)
    if TOTAL:
        tl.store(s_whole + own, S, mask=at < SIZE)
        if MOMENTUM:
            tl.store(p_whole + own, P, mask=at < SIZE)


COMBINED = 512
"""Elements of a state that one program of `combine` takes, 4 a thread, ..."""
AT_ONCE = 8
"""... of so many segments at once."""


class States(NamedTuple):
    """Float32 sums, a slot for each (batch, head) and segment; dims padded as in the tiles."""

    s: torch.Tensor | None
    """[pairs, segments, value_dim, head_dim]"""
    p: torch.Tensor | None
    """As s; None where there is no momentum, or all is weighted to the sequence's end."""
    z: torch.Tensor | None
    """[pairs, segments, head_dim]"""

    @staticmethod
    def shape(plan: Plan) -> tuple[int, int]:
        """That of one S: value_dim and head_dim, padded."""
        return plan.tiles.value_blocks * plan.tiles.value_dim, plan.tiles.head_dim

    @classmethod
    def empty(cls, plan: Plan, slots: tuple[int, int], device: torch.device, *, swings: bool) -> "States":
        """Of (pairs, segments), not filled; `swings` is whether there is a P."""
        rows, columns = cls.shape(plan)
        wide, narrow = (*slots, rows, columns), (*slots, columns)
        return cls(
            torch.empty(wide, dtype=torch.float32, device=device),
            torch.empty(wide, dtype=torch.float32, device=device) if swings else None,
            torch.empty(narrow, dtype=torch.float32, device=device),
        )


NO_STATES = States(None, None, None)
"""Of a causal sequence in one segment."""


def key_value_states(plan: Plan, launch: Launch, k: torch.Tensor, v: torch.Tensor) -> States:
    """Causal: what lies before each segment, in its slot. Else the whole sequence's, in the only slot."""
    if plan.case.spec.causal and plan.keys.segments == 1:
        return NO_STATES
    own = segment_states(plan, launch, plan.keys, k, v, to_end=not plan.case.spec.causal, skipped=1)
    return _between_or_whole(plan, launch, plan.keys, own, back=False)


def gradient_states(
    plan: Plan, launch: Launch, q: torch.Tensor, do: torch.Tensor, den: torch.Tensor, delta: torch.Tensor
) -> States:
    """Causal: the sums over the queries after each segment, in its slot. Else over all, in the only slot."""
    if plan.case.spec.causal and plan.queries.segments == 1:
        return NO_STATES
    own = segment_states(plan, launch, plan.queries, q, do, den, delta, skipped=1)
    return _between_or_whole(plan, launch, plan.queries, own, back=True)


def _between_or_whole(plan: Plan, launch: Launch, cut: Cut, own: States, *, back: bool) -> States:
    if plan.case.spec.causal:
        return between(plan, launch, cut, own, None, back=back)
    return own if cut.segments == 1 else whole(plan, launch, cut, own, back=back)


def segment_states(
    plan: Plan,
    launch: Launch,
    cut: Cut,
    x: torch.Tensor,
    y: torch.Tensor,
    den: torch.Tensor | None = None,
    delta: torch.Tensor | None = None,
    *,
    to_end: bool = False,
    skipped: int = 0,
) -> States:
    """Each segment's own sums, in its slot: of k and v, or of q and do with the `den` and `delta` of a pass
    back in time.

    Args:
        plan: of the case.
        launch: what is done with the kernel.
        cut: how the sequence is cut.
        x: k, or q.
        y: v, or do.
        den: of the queries; None: of k and v.
        delta: of the queries.
        to_end: whether weights are those at the end of the sequence (eq 14), not of the segment.
        skipped: 1 where nobody wants those of the last segment, or back in time of the first: causal alone.
    """
    case, back = plan.case, den is not None
    prepared, swings = _adding(plan, cut, back, to_end, skipped)
    own = States.empty(plan, (case.batch * case.heads, cut.segments), x.device, swings=swings)
    launch(prepared, x, y, den, delta, None if back else plan.lengths, *own, plan.u, plan.b)
    return own


@once_a_plan
def _adding(plan: Plan, cut: Cut, back: bool, to_end: bool, skipped: int) -> tuple[Prepared, bool]:
    """The launch of `states`, and whether it makes a P."""
    case, tiles = plan.case, plan.tiles
    causal = case.spec.causal
    # Without a causal mask a key's weight depends on its own position alone (eq 14), not on the query's.
    momentum = case.spec.kind == "momentum" and (causal or not back)
    skipped *= causal
    prepared = Prepared(
        states,
        (case.batch * case.heads * tiles.value_blocks, cut.segments - skipped),
        (plan.last, cut.length, case.heads, cut.segment, cut.segments, skipped * back, plan.gain),
        {"GRADIENT": back, "MOMENTUM": momentum, "TO_END": to_end}
        | plan.constants
        | {"WHOLE": plan.whole(cut, tiles)},
        tiles,
    )
    return prepared, momentum and not to_end


def between(plan: Plan, launch: Launch, cut: Cut, own: States, first: States | None, *, back: bool) -> States:
    """The states before each segment (`back`: after it), in the place of its own; `first`, of one slot, is
    before them all (`back`: after them)."""
    _combine(plan, launch, cut, own, first or NO_STATES, NO_STATES, back=back)
    return own


def whole(
    plan: Plan, launch: Launch, cut: Cut, own: States, into: States | None = None, *, back: bool
) -> States:
    """The state of all segments together, in one slot; their own stay as they are."""
    assert own.s is not None  # noqa: S101  (they were made)
    if into is None:
        into = States.empty(plan, (own.s.shape[0], 1), own.s.device, swings=own.p is not None)
    _combine(plan, launch, cut, own, NO_STATES, into, back=back)
    return into


def _combine(
    plan: Plan, launch: Launch, cut: Cut, own: States, first: States, into: States, *, back: bool
) -> None:
    prepared = _combining(plan, cut, own.p is not None, back, into.s is not None)
    launch(prepared, *own, *first, *into)


@once_a_plan
def _combining(plan: Plan, cut: Cut, momentum: bool, back: bool, total: bool) -> Prepared:
    size = math.prod(States.shape(plan))
    block = min(COMBINED, size)
    over, last = plan.decay(cut.segment), plan.decay(cut.length - (cut.segments - 1) * cut.segment)
    return Prepared(
        combine,
        (plan.case.batch * plan.case.heads, size // block + -(-plan.tiles.head_dim // block)),
        (cut.segments, over.carry, over.keep, last.carry, last.keep),
        {"MOMENTUM": momentum, "BACK": back, "TOTAL": total}
        | {"SIZE": size, "BD": plan.tiles.head_dim, "BLOCK": block, "AT_ONCE": AT_ONCE},
        SMALL,
    )


SMALL = Tiles(rows=0, keys=0, head_dim=0, value_dim=0, value_blocks=1, warps=4, stages=1)
"""A kernel without tiles."""
