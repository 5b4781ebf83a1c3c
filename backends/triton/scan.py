"""Causal linear and momentum attention: the chunked scan and its launch."""

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import (
    both,
    by_factors,
    feature_map,
    first_row,
    groups_sum,
    operand,
    product,
    real_keys,
    row_sum,
    rows_before,
)
from .plan import Plan, once_a_plan
from .states import States, key_value_states

__all__ = ["attention", "output"]


@triton.jit
def scanned(
    S, P, Z, q, k, v, o, den, lengths, u, b, last, pid, length, held, beta, chunk_carry, chunk_keep, gain,
    eps, MOMENTUM: tl.constexpr, FORGETS: tl.constexpr, FACTORED: tl.constexpr, KEEP: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr,
    NV: tl.constexpr, WHOLE: tl.constexpr, GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The output of a segment of `length` positions, of which the first `held` have real keys, from the
    states S, P and Z before it; see `scan`. q, k, v, o and den point to its first position."""
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    d, e, t = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV), tl.arange(0, BT)
    in_head, in_value = d < D, e < DV
    q_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    v_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    lag = t[:, None] - t[None, :]  # [BT, BT]
    if MOMENTUM:
        # A chunk's last key is its BT - 1st: what is past the table's end belongs to no real position.
        if not FACTORED:
            u_lag = tl.load(u + tl.minimum(lag, last), mask=lag >= 0, other=0.0)  # [BT, BT]
        u_end = tl.load(u + tl.minimum(BT - 1 - t, last))  # [BT], a key's weight at the chunk's end
        b_end = tl.load(b + tl.minimum(BT - 1 - t, last))  # [BT]
        carry = beta * tl.load(u + tl.minimum(t, last))  # [BT], c(i)
    if FORGETS:
        S += beta * P
        P = operand(P, DOT)
        carry = -beta * beta * tl.load(b + tl.minimum(t, last))  # [BT], -beta^(i+1)
    if FACTORED:
        column = b_end / chunk_keep  # [BT], beta^-j
    for start in range(0, length, BT):
        real = rows_before(t, length - start, WHOLE)
        seen = real
        if lengths is not None:
            seen = t < held - start
        queries = tl.load(q + q_tile, mask=both(real[:, None], in_head[None, :], ALL_D), other=0.0)
        phi_q = operand(feature_map(queries), DOT)  # [BT, BD]
        before = operand(tl.trans(Z), DOT)
        before = product(phi_q, before, tl.full([BT, GROUPS], 0.0, tl.float32), DOT)
        num = tl.full([BT, BV], 0.0, tl.float32)
        if MOMENTUM:
            num = product(phi_q, tl.trans(operand(P, DOT)), num, DOT) * carry[:, None]
        num = product(phi_q, tl.trans(operand(S, DOT)), num, DOT)

        keys = tl.load(k + q_tile, mask=both(seen[:, None], in_head[None, :], ALL_D), other=0.0)
        phi_k = feature_map(keys)  # [BT, BD]
        # phi(0) = 1, so padding has to be cut out after the map; but no real query sees a row past the end.
        if not ALL_D or lengths is not None:
            phi_k = tl.where(both(seen[:, None], in_head[None, :], ALL_D), phi_k, 0.0)
        Z += groups_sum(phi_k, GROUPS)
        phi_k = operand(phi_k, DOT)
        scores = product(phi_q, tl.trans(phi_k), tl.full([BT, BT], 0.0, tl.float32), DOT)
        scores = tl.where(lag >= 0, scores, 0.0)
        total = row_sum(scores, 1) + row_sum(before, 1) + eps  # [BT]
        if KEEP:  # noqa: SIM102  # the one is settled when compiling, the other when running
            if pid % NV == 0:
                tl.store(den + start + t, total, mask=real)
        share = gain / total
        if FACTORED:
            scores = by_factors(scores, carry, column)
        elif MOMENTUM:
            scores *= u_lag
        values = tl.load(v + v_tile, mask=both(seen[:, None], in_value[None, :], ALL_V), other=0.0)
        num = product(operand(scores, DOT), operand(values, DOT), num, DOT)
        out = (num * share[:, None]).to(o.dtype.element_ty)
        tl.store(o + v_tile, out, mask=both(real[:, None], in_value[None, :], ALL_V))

        if FORGETS:
            S = product(tl.trans(operand(values, DOT)), phi_k, S, DOT)
            P = tl.full([BV, BD], 0.0, tl.float32)
            P = operand(product(tl.trans(operand(values * b_end[:, None], DOT)), phi_k, P, DOT), DOT)
        elif MOMENTUM:
            S = product(tl.trans(operand(values * u_end[:, None], DOT)), phi_k, S + chunk_carry * P, DOT)
            P = product(tl.trans(operand(values * b_end[:, None], DOT)), phi_k, chunk_keep * P, DOT)
        else:
            S = product(tl.trans(operand(values, DOT)), phi_k, S, DOT)
        q += BT * D
        k += BT * D
        v += BT * DV
        o += BT * DV


@triton.jit(do_not_specialize=["n", "heads", "segment", "segments", "last"])
def scan(
    q, k, v, o, den, lengths, s_in, p_in, z_in, u, b, last, n, heads, segment, segments,
    beta, chunk_carry, chunk_keep, gain, eps,
    MOMENTUM: tl.constexpr, FORGETS: tl.constexpr, FACTORED: tl.constexpr, SEGMENTED: tl.constexpr,
    KEEP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BT: tl.constexpr, NV: tl.constexpr, WHOLE: tl.constexpr, GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Eq 8 and, with `MOMENTUM`, eq 13, chunk by chunk. With P the momentum state and S the sum where a chunk
    of C starts, i = 1..C inside it, ``u(n) = 1 - beta^(n+1)`` and ``c(n) = beta (1 - beta^n)``::

        num_i = phi(q_i)^T (S + c(i) P) + sum_{j<=i} u(i-j) (phi(q_i) . phi(k_j)) v_j
        den_i = phi(q_i)^T z + sum_{j<=i} phi(q_i) . phi(k_j) + eps
        o_i = gamma / (1 - beta) num_i / den_i
        S <- S + c(C) P + sum_j u(C-j) phi(k_j) v_j^T;  P <- beta^C P + sum_j beta^(C-j) phi(k_j) v_j^T

    Linear attention is the same with u = 1 and no P, and pays for neither. Keys past their sequence's
    `lengths` add nothing. `KEEP` stores den, for the backward.

    Where a chunk `FORGETS` what came before the last one, beta^(C+2) being lost in the rounding of a
    product's operands, P is of the last chunk alone and lies in their dtype, and S has every key at weight
    1::

        num_i = phi(q_i)^T (S - beta^(i+1) P) + sum_{j<=i} u(i-j) (phi(q_i) . phi(k_j)) v_j

    and where it is also `FACTORED`, u(i-j) = 1 - beta^(i+1) beta^-j is made of that weight of P's and of b.

    Tiling: one program a (batch, head, block of BV values) and segment, over chunks of BT positions; S and P,
    transposed, [BV, BD], z in GROUPS sums [GROUPS, BD] and, where it is not `FACTORED`, u(i-j) [BT, BT] stay
    in float32 registers.
    Traffic: q, k, v and o once, n (2 head_dim NV + 2 value_dim) itemsize bytes a (batch, head); `SEGMENTED`,
    the state before each segment, 4 BD BV bytes (with `MOMENTUM` twice that); `KEEP`, 4 n bytes.
    """
    pid, part = tl.program_id(0), tl.program_id(1)
    pair, first = (pid // NV).to(tl.int64), part * segment
    head = pair * n + first
    d, e = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    q += head * D
    k += head * D
    v += head * DV
    o += head * DV
    S = tl.full([BV, BD], 0.0, tl.float32)
    P = tl.full([BV, BD], 0.0, tl.float32)
    Z = tl.full([GROUPS, BD], 0.0, tl.float32)
    if SEGMENTED:
        slot = pair * segments + part
        tile = slot * (NV * BV * BD) + e[:, None] * BD + d[None, :]  # [BV, BD]
        S = tl.load(s_in + tile)
        if MOMENTUM:
            P = tl.load(p_in + tile)
        Z = first_row(tl.load(z_in + slot * BD + d), GROUPS)
    if KEEP:
        den += head
    length = tl.minimum(segment, n - first)
    held = tl.minimum(length, real_keys(lengths, pair, heads, n) - first)
    scanned(
        S, P, Z, q, k, v, o, den, lengths, u, b, last, pid, length, held, beta, chunk_carry, chunk_keep, gain,
        eps, MOMENTUM, FORGETS, FACTORED, KEEP, D, DV, BD, BV, BT, NV, WHOLE, GROUPS, DOT,
    )  # fmt: skip


def attention(
    plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Causal attention of contiguous [batch, heads, n, dim] tensors; with `keep` what `gradients` wants."""
    before = key_value_states(plan, launch, k, v)
    o, den = output(plan, launch, q, k, v, before, keep=keep)
    return o, (den, *before) if keep else ()


def output(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    before: States,
    *,
    keep: bool,
    o: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output, in `o` where that is given, from the state before each segment; with `keep` also the
    denominators."""
    case = plan.case
    if o is None:
        shape = (case.batch, case.heads, case.seq_len, case.value_dim)
        o = torch.empty(shape, dtype=v.dtype, device=v.device)
    den = torch.empty(o.shape[:3], dtype=torch.float32, device=v.device) if keep else None
    prepared = _prepared(plan, before.s is not None, keep)
    launch(prepared, q, k, v, o, den, plan.lengths, *before, plan.u, plan.b)
    return o, den


@once_a_plan
def _prepared(plan: Plan, segmented: bool, keep: bool) -> Prepared:
    case, spec, cut = plan.case, plan.case.spec, plan.queries
    over = plan.decay(plan.tiles.rows)
    return Prepared(
        scan,
        (case.batch * case.heads * plan.tiles.value_blocks, cut.segments),
        (
            *(plan.last, case.seq_len, case.heads, cut.segment, cut.segments),
            *(spec.beta, over.carry, over.keep, plan.gain, spec.eps),
        ),
        {
            "MOMENTUM": plan.u is not None,
            "FORGETS": plan.forgets(plan.tiles),
            "FACTORED": plan.factored(plan.tiles),
            "SEGMENTED": segmented,
            "KEEP": keep,
            **plan.constants,
        },
        plan.tiles,
    )
