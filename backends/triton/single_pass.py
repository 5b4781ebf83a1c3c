"""Causal linear and momentum attention in segments, in one kernel: a look-back scan."""

import torch
import triton
import triton.language as tl

from . import scan
from .launch import Launch, Prepared
from .maps import first_row, real_keys, row_sum
from .plan import MOST, Plan, once_a_plan
from .scan import scanned
from .states import added_up

__all__ = ["attention"]

FLAGS = tl.constexpr(MOST)
"""The flags of as many segments as there may be are looked at together."""


@triton.jit(do_not_specialize=["n", "heads", "segment", "segments", "owners", "last"])
def single_pass(
    q, k, v, o, lengths, s, p, z, started, ready, u, b, last, n, heads, segment, segments, owners,
    beta, chunk_carry, chunk_keep, carry, keep, gain, eps,
    MOMENTUM: tl.constexpr, FORGETS: tl.constexpr, FACTORED: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, NV: tl.constexpr,
    WHOLE: tl.constexpr, GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """What `states`, `combine` and `scan` compute. A program adds up its own segment, tells the others, waits
    until those of its sequence's earlier segments have told, puts their states together, and goes through its
    segment again.

    No program waits for one that has not started: which segment it takes it learns from a counter, and the
    earlier segments were given away before.

    Tiling: one program a segment of a (batch, head, block of BV values); S and P, transposed, [BV, BD], z in
    GROUPS sums [GROUPS, BD] and u(i-j) [BT, BT] stay in float32 registers.
    Traffic: as `scan`, and k and v once more, from the L2 where the segments that run at a time fit in it;
    each segment's states, 4 BD BV bytes (with `MOMENTUM` twice that), once out and once in for every later
    one.
    """
    ticket = tl.atomic_add(started, 1)
    part, pid = ticket // owners, ticket % owners
    pair, first = (pid // NV).to(tl.int64), part * segment
    head = pair * n + first
    d, e = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV)
    q += head * D
    k += head * D
    v += head * DV
    o += head * DV
    length = tl.minimum(segment, n - first)
    held = tl.minimum(length, real_keys(lengths, pair, heads, n) - first)
    tile = tl.arange(0, BV)[:, None] * BD + d[None, :]  # [BV, BD]
    own = pid.to(tl.int64) * segments  # the slot of the program's first segment
    S = tl.full([BV, BD], 0.0, tl.float32)
    P = tl.full([BV, BD], 0.0, tl.float32)
    Z = tl.full([GROUPS, BD], 0.0, tl.float32)
    if part < segments - 1:
        begin = length * 0  # a tensor, as border is
        if MOMENTUM:
            border = tl.minimum(tl.maximum(segment - last, 0) // BT * BT, tl.maximum(held, 0))
            S, P, Z = added_up(
                S, P, Z, k, v, None, None, u, b, last, begin, border, held, segment, gain,
                False, False, True, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
            )  # fmt: skip
            S, P, Z = added_up(
                S, P, Z, k, v, None, None, u, b, last, border, held, held, segment, gain,
                False, True, True, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
            )  # fmt: skip
        else:
            S, P, Z = added_up(
                S, P, Z, k, v, None, None, u, b, last, begin, held, held, segment, gain,
                False, False, False, D, DV, BT, GROUPS, WHOLE, BD, BV, DOT, d, e,
            )  # fmt: skip
        tl.store(s + (own + part) * (BV * BD) + tile, S)
        if MOMENTUM:
            tl.store(p + (own + part) * (BV * BD) + tile, P)
        tl.store(z + (own + part) * BD + d, row_sum(Z, 0))
        tl.debug_barrier()  # every thread's stores are before the flag
        tl.atomic_xchg(ready + own + part, 1, sem="release")
    S = tl.full([BV, BD], 0.0, tl.float32)
    P = tl.full([BV, BD], 0.0, tl.float32)
    before = tl.full([BD], 0.0, tl.float32)
    if part > 0:
        index = tl.arange(0, FLAGS)
        there = tl.load(ready + own + index, mask=index < part, other=1, volatile=True)
        while row_sum(there, 0) < FLAGS:
            there = tl.load(ready + own + index, mask=index < part, other=1, volatile=True)
        # An acquire for each: what is loaded from here on is what was told.
        tl.atomic_add(ready + own + index, 0, mask=index < part, sem="acquire")
        tl.debug_barrier()
        for earlier in range(part):
            slot = own + earlier
            sums = tl.load(s + slot * (BV * BD) + tile, cache_modifier=".cg")
            if MOMENTUM:
                swings = tl.load(p + slot * (BV * BD) + tile, cache_modifier=".cg")
                S += carry * P
                P = keep * P + swings
            S += sums
            before += tl.load(z + slot * BD + d, cache_modifier=".cg")
    scanned(
        S, P, first_row(before, GROUPS), q, k, v, o, None, lengths, u, b, last, pid, length, held, beta,
        chunk_carry, chunk_keep, gain, eps, MOMENTUM, FORGETS, FACTORED, False, D, DV, BD, BV, BT, NV, WHOLE,
        GROUPS, DOT,
    )  # fmt: skip


def attention(
    plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """What `scan.attention` does, and by it where there is one segment, or the backward wants its states.

    Raises:
        ValueError: the plan has more segments than `MOST`.
    """
    case, cut, tiles = plan.case, plan.queries, plan.tiles
    if keep or cut.segments == 1:
        return scan.attention(plan, launch, q, k, v, keep)
    if cut.segments > MOST:
        raise ValueError(f"{cut.segments} segments, and at most {MOST} look back")
    owners = case.batch * case.heads * tiles.value_blocks
    o = torch.empty((case.batch, case.heads, case.seq_len, case.value_dim), dtype=v.dtype, device=v.device)
    slots = (owners, cut.segments)
    s = torch.empty((*slots, tiles.value_dim, tiles.head_dim), dtype=torch.float32, device=v.device)
    p = torch.empty_like(s) if plan.u is not None else None
    z = torch.empty((*slots, tiles.head_dim), dtype=torch.float32, device=v.device)
    # The counter has 16 bytes for itself: the compiler is told that every array starts at a multiple.
    flags = torch.zeros(4 + owners * cut.segments, dtype=torch.int32, device=v.device)
    launch(_prepared(plan), q, k, v, o, plan.lengths, s, p, z, flags, flags[4:], plan.u, plan.b)
    return o, ()


@once_a_plan
def _prepared(plan: Plan) -> Prepared:
    case, spec, cut, tiles = plan.case, plan.case.spec, plan.queries, plan.tiles
    owners = case.batch * case.heads * tiles.value_blocks
    chunk, whole = plan.decay(tiles.rows), plan.decay(cut.segment)
    return Prepared(
        single_pass,
        (owners * cut.segments,),
        (
            *(plan.last, case.seq_len, case.heads, cut.segment, cut.segments, owners),
            *(spec.beta, chunk.carry, chunk.keep, whole.carry, whole.keep, plan.gain, spec.eps),
        ),
        {
            "MOMENTUM": plan.u is not None,
            "FORGETS": plan.forgets(tiles),
            "FACTORED": plan.factored(tiles),
            **plan.constants,
        },
        tiles,
    )
