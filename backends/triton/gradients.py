"""The backward of linear and momentum attention: two kernels and their launch.

With ``g_i = gamma / (1 - beta) do_i / den_i``, ``delta_i = do_i . o_i / den_i`` and u(n) the weight of a key
n positions back (1 without momentum; without a causal mask all sums run over the whole sequence, and u
belongs to the key alone)::

    dphi(q_i) = sum_{j<=i} [u(i-j) (g_i . v_j) - delta_i] phi(k_j)
    dphi(k_j) = sum_{i>=j} [u(i-j) (g_i . v_j) - delta_i] phi(q_i)
    dv_j      = sum_{i>=j}  u(i-j) (phi(q_i) . phi(k_j)) g_i

and phi'(x) = 1 above 0, exp(x) below. The first runs forward in time with the forward's own states, the other
two back in time with ``R = sum_i u phi(q_i) g_i^T`` and ``y = sum_i delta_i phi(q_i)``.
"""

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
    slope,
)
from .plan import Plan, once_a_plan
from .states import States, gradient_states

__all__ = ["gradients", "of_keys_and_values", "of_queries"]


@triton.jit
def added_keys(Z, k, there, seen, lengths, GROUPS: tl.constexpr, DOT: tl.constexpr):
    """The operand phi(k) of a chunk, to which `k` [BT, BD] points where it is `there`, and Z with it."""
    phi = feature_map(tl.load(k, mask=there, other=0.0))
    if lengths is not None:  # else what is past the end is seen by no real query
        phi = tl.where(seen[:, None], phi, 0.0)
    return operand(phi, DOT), Z + groups_sum(phi, GROUPS)


@triton.jit(do_not_specialize=["n", "heads", "segment", "slots", "last"])
def query_gradients(
    q, k, v, o, do, dq, den, delta, lengths, s_in, p_in, z_in, u, b, last, n, heads, segment, slots,
    beta, chunk_carry, chunk_keep, gain,
    MOMENTUM: tl.constexpr, FORGETS: tl.constexpr, FACTORED: tl.constexpr, CAUSAL: tl.constexpr,
    SEGMENTED: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BT: tl.constexpr, BLOCKS: tl.constexpr, LD: tl.constexpr, LV: tl.constexpr, WHOLE: tl.constexpr,
    GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Computes dq, and delta for the kernel after it. With S, P, z where a chunk starts, c(i) as in `scan`::

        dphi(q_i) = (S + c(i) P) g_i - delta_i z + sum_{j<=i} [u(i-j) (g_i . v_j) - delta_i] phi(k_j)

    Without `CAUSAL` only the first two terms are left, with the S and z of the whole sequence. `FORGETS` and
    `FACTORED` are what they are in `scan`.

    Tiling: one program a (batch, head, block of BD columns) and segment, over chunks of BT positions; S and
    P, transposed, [BV, BD], z in GROUPS sums [GROUPS, BD] and u(i-j) [BT, BT] stay in float32 registers.
    Every program has all columns of v and do, since g_i . v_j runs over them.
    Traffic: q, k and dq once, v, o and do once a block: n (3 head_dim + 3 value_dim BLOCKS) itemsize bytes a
    (batch, head), without `CAUSAL` n (2 head_dim + 2 value_dim BLOCKS); den and delta, 8 n bytes.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    # phi(k) before the scores or after, by what the compiler spills (docs/triton-notebook.md, section 9).
    EARLY: tl.constexpr = FORGETS and BV <= 128
    pid, part = tl.program_id(0), tl.program_id(1)
    pair, first = (pid // BLOCKS).to(tl.int64), part * segment
    head = pair * n + first
    d, e, t = (pid % BLOCKS) * BD + tl.arange(0, BD), tl.arange(0, BV), tl.arange(0, BT)
    in_head, in_value = d < D, e < DV
    q += head * D
    dq += head * D
    k += head * D
    d_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    v += head * DV
    o += head * DV
    do += head * DV
    e_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    den += head
    delta += head
    S = tl.full([BV, BD], 0.0, tl.float32)
    P = tl.full([BV, BD], 0.0, tl.float32)
    Z = tl.full([GROUPS, BD], 0.0, tl.float32)
    if SEGMENTED:
        slot = pair * slots + (part if CAUSAL else 0)
        tile = slot * (LV * LD) + e[:, None] * LD + d[None, :]
        held = in_value[:, None] & in_head[None, :]
        S = tl.load(s_in + tile, mask=held, other=0.0)
        if MOMENTUM and CAUSAL:
            P = tl.load(p_in + tile, mask=held, other=0.0)
        Z = first_row(tl.load(z_in + slot * LD + d), GROUPS)
    lag = t[:, None] - t[None, :]  # [BT, BT]
    if MOMENTUM and CAUSAL:
        if not FACTORED:
            u_lag = tl.load(u + tl.minimum(lag, last), mask=lag >= 0, other=0.0)  # [BT, BT]
        u_end = tl.load(u + tl.minimum(BT - 1 - t, last))  # [BT]
        b_end = tl.load(b + tl.minimum(BT - 1 - t, last))  # [BT]
        carry = beta * tl.load(u + tl.minimum(t, last))  # [BT]
    if FORGETS:
        S += beta * P
        P = operand(P, DOT)
        carry = -beta * beta * tl.load(b + tl.minimum(t, last))  # [BT], -beta^(i+1)
    if FACTORED:
        column = b_end / chunk_keep  # [BT], beta^-j
    length = tl.minimum(segment, n - first)
    key_count = tl.minimum(length, real_keys(lengths, pair, heads, n) - first)
    for start in range(0, length, BT):
        real = rows_before(t, length - start, WHOLE)
        seen = real
        if lengths is not None:
            seen = t < key_count - start
        there = both(real[:, None], in_value[None, :], ALL_V)
        pull = tl.load(do + e_tile, mask=there, other=0.0).to(tl.float32)  # [BT, BV]
        outputs = tl.load(o + e_tile, mask=there, other=0.0).to(tl.float32)
        share = 1.0 / tl.load(den + start + t, mask=real, other=1.0)  # [BT]
        own = row_sum(pull * outputs, 1) * share  # [BT], delta
        if pid % BLOCKS == 0:
            tl.store(delta + start + t, own, mask=real)
        g = operand(pull * (gain * share)[:, None], DOT)  # [BT, BV]
        grad = tl.full([BT, BD], 0.0, tl.float32)
        if MOMENTUM and CAUSAL:
            grad = product(g, operand(P, DOT), grad, DOT) * carry[:, None]
        grad = product(g, operand(S, DOT), grad, DOT)
        # - delta z, with a column of delta for each of the sums that z is in.
        grad = product(operand(tl.broadcast_to(-own[:, None], [BT, GROUPS]), DOT), operand(Z, DOT), grad, DOT)
        if CAUSAL:
            values = tl.load(v + e_tile, mask=both(seen[:, None], in_value[None, :], ALL_V), other=0.0)
            in_keys = both(seen[:, None], in_head[None, :], ALL_D)
            if EARLY:
                phi_k, Z = added_keys(Z, k + d_tile, in_keys, seen, lengths, GROUPS, DOT)
            scores = tl.full([BT, BT], 0.0, tl.float32)
            scores = product(g, tl.trans(operand(values, DOT)), scores, DOT)
            if FACTORED:
                scores = by_factors(scores, carry, column)
            elif MOMENTUM:
                scores *= u_lag
            scores = tl.where(lag >= 0, scores - own[:, None], 0.0)
            if not EARLY:
                phi_k, Z = added_keys(Z, k + d_tile, in_keys, seen, lengths, GROUPS, DOT)
            grad = product(operand(scores, DOT), phi_k, grad, DOT)
            if FORGETS:
                S = product(tl.trans(operand(values, DOT)), phi_k, S, DOT)
                P = tl.full([BV, BD], 0.0, tl.float32)
                P = operand(product(tl.trans(operand(values * b_end[:, None], DOT)), phi_k, P, DOT), DOT)
            elif MOMENTUM:
                S = product(tl.trans(operand(values * u_end[:, None], DOT)), phi_k, S + chunk_carry * P, DOT)
                P = product(tl.trans(operand(values * b_end[:, None], DOT)), phi_k, chunk_keep * P, DOT)
            else:
                S = product(tl.trans(operand(values, DOT)), phi_k, S, DOT)
        queries = tl.load(q + d_tile, mask=both(real[:, None], in_head[None, :], ALL_D), other=0.0)
        tl.store(
            dq + d_tile, (grad * slope(queries)).to(dq.dtype.element_ty),
            mask=both(real[:, None], in_head[None, :], ALL_D),
        )  # fmt: skip
        q += BT * D
        dq += BT * D
        k += BT * D
        v += BT * DV
        o += BT * DV
        do += BT * DV


@triton.jit(do_not_specialize=["n", "heads", "segment", "slots", "last"])
def key_value_gradients(
    q, k, v, do, dk, dv, den, delta, lengths, s_in, p_in, z_in, u, b, last, n, heads, segment, slots,
    beta, chunk_carry, chunk_keep, gain,
    MOMENTUM: tl.constexpr, FORGETS: tl.constexpr, FACTORED: tl.constexpr, CAUSAL: tl.constexpr,
    SEGMENTED: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr, BLOCKS: tl.constexpr, LD: tl.constexpr,
    LV: tl.constexpr, WHOLE: tl.constexpr, GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Computes dk (`KEYS`), dv (`VALUES`) or both, from the last chunk to the first. With R, its momentum Q
    and y of all queries after a chunk of C, j = 1..C inside it::

        dphi(k_j) = (R + c(C+1-j) Q) v_j - y + sum_{i>=j} [u(i-j) (g_i . v_j) - delta_i] phi(q_i)
        dv_j = (R + c(C+1-j) Q)^T phi(k_j) + sum_{i>=j} u(i-j) (phi(q_i) . phi(k_j)) g_i
        R <- R + c(C) Q + sum_i u(i-1) phi(q_i) g_i^T;  Q <- beta^C Q + sum_i beta^(i-1) phi(q_i) g_i^T

    Where a chunk `FORGETS`, R and Q are what S and P are in `scan`, back in time; `FACTORED` is as there.
    Without `CAUSAL` the sums within the chunk go, R and y are the whole sequence's, and with `MOMENTUM` both
    R terms get the key's own weight u(N-j) (eq 14), N being the sequence's own length where it has one. Keys
    past that get zeros.

    Tiling: one program a (batch, head, block) and segment, over chunks of BT positions; R and Q, transposed,
    [BV, BD], y in GROUPS sums [GROUPS, BD] and u(i-j) [BT, BT] stay in float32 registers. Where the states of
    all columns would not fit, dk and dv have a launch each: dk in blocks of BD columns with all of v, dv in
    blocks of BV with all of k.
    Traffic: q, k, v and do once a block, what is asked of dk and dv once; den and delta, 8 n bytes a block.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    pid, part = tl.program_id(0), tl.program_id(1)
    pair, first = (pid // BLOCKS).to(tl.int64), part * segment
    d, e, t = tl.arange(0, BD), tl.arange(0, BV), tl.arange(0, BT)
    if KEYS:
        d += (pid % BLOCKS) * BD
    else:
        e += (pid % BLOCKS) * BV
    in_head, in_value = d < D, e < DV
    length = tl.minimum(segment, n - first)
    left = real_keys(lengths, pair, heads, n) - first
    chunks = (length + BT - 1) // BT
    head = pair * n + first
    row = head + (chunks - 1) * BT
    q += row * D
    k += row * D
    dk += row * D
    d_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    v += row * DV
    do += row * DV
    dv += row * DV
    e_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    den += head
    delta += head
    R = tl.full([BV, BD], 0.0, tl.float32)
    Q = tl.full([BV, BD], 0.0, tl.float32)
    Y = tl.full([GROUPS, BD], 0.0, tl.float32)
    if SEGMENTED:
        slot = pair * slots + (part if CAUSAL else 0)
        tile = slot * (LV * LD) + e[:, None] * LD + d[None, :]
        held = in_head[None, :] & in_value[:, None]
        R = tl.load(s_in + tile, mask=held, other=0.0)
        if MOMENTUM and CAUSAL:
            Q = tl.load(p_in + tile, mask=held, other=0.0)
        Y = first_row(tl.load(z_in + slot * LD + d, mask=in_head, other=0.0), GROUPS)
    lag = t[None, :] - t[:, None]  # [BT, BT], of query i from key j: rows are keys here
    if MOMENTUM and CAUSAL:
        if not FACTORED:
            u_lag = tl.load(u + tl.minimum(lag, last), mask=lag >= 0, other=0.0)  # [BT, BT]
        u_start = tl.load(u + tl.minimum(t, last))  # [BT]
        b_start = tl.load(b + tl.minimum(t, last))  # [BT]
        carry = beta * tl.load(u + tl.minimum(BT - 1 - t, last))  # [BT]
    if FORGETS:
        R += beta * Q
        Q = operand(Q, DOT)
        carry = -beta * beta * tl.load(b + tl.minimum(BT - 1 - t, last))  # [BT], -beta^(C+2-j)
    if FACTORED:
        column = b_start / chunk_keep  # [BT], beta^(i-1-C)
    for index in range(chunks):
        start = (chunks - 1 - index) * BT
        real = rows_before(t, length - start, WHOLE)
        in_keys = both(real[:, None], in_head[None, :], ALL_D)
        in_values = both(real[:, None], in_value[None, :], ALL_V)
        keys = tl.load(k + d_tile, mask=in_keys, other=0.0)
        phi_k = operand(feature_map(keys), DOT)  # [BT, BD]; padding meets zeros in all it is multiplied by
        values = operand(tl.load(v + e_tile, mask=in_values, other=0.0), DOT)  # [BT, BV]
        grad_k = tl.full([BT, BD], 0.0, tl.float32)
        grad_v = tl.full([BT, BV], 0.0, tl.float32)
        if MOMENTUM and CAUSAL:
            if KEYS:
                grad_k = product(values, operand(Q, DOT), grad_k, DOT) * carry[:, None]
            if VALUES:
                grad_v = product(phi_k, tl.trans(operand(Q, DOT)), grad_v, DOT) * carry[:, None]
        if KEYS:
            grad_k = product(values, operand(R, DOT), grad_k, DOT)
        if VALUES:
            grad_v = product(phi_k, tl.trans(operand(R, DOT)), grad_v, DOT)
        if MOMENTUM and not CAUSAL:
            ahead = tl.minimum(tl.maximum(left - 1 - start - t, 0), last)  # [BT]
            weight = tl.load(u + ahead)[:, None]
            grad_k *= weight
            grad_v *= weight
        if KEYS:  # - y, with a column of -1 for each of the sums that it is in
            grad_k = product(tl.full([BT, GROUPS], -1.0, values.dtype), operand(Y, DOT), grad_k, DOT)
        if CAUSAL:
            queries = tl.load(q + d_tile, mask=in_keys, other=0.0)
            phi_q = feature_map(queries)  # [BT, BD]
            if not ALL_D:  # past the end g and delta are 0, in padded columns nothing is
                phi_q = tl.where(in_head[None, :], phi_q, 0.0)
            pull = tl.load(do + e_tile, mask=in_values, other=0.0)
            share = gain / tl.load(den + start + t, mask=real, other=1.0)
            scaled = pull * share[:, None]  # [BT, BV]
            g = operand(scaled, DOT)
            own = tl.load(delta + start + t, mask=real, other=0.0)  # [BT]
            fresh = groups_sum(phi_q * own[:, None], GROUPS)  # [GROUPS, BD]
            phi_q = operand(phi_q, DOT)
            if KEYS:
                scores = product(values, tl.trans(g), tl.full([BT, BT], 0.0, tl.float32), DOT)
                if FACTORED:
                    scores = by_factors(scores, carry, column)
                elif MOMENTUM:
                    scores *= u_lag
                scores = tl.where(lag >= 0, scores - own[None, :], 0.0)
                grad_k = product(operand(scores, DOT), phi_q, grad_k, DOT)
            if VALUES:
                scores = product(phi_k, tl.trans(phi_q), tl.full([BT, BT], 0.0, tl.float32), DOT)
                if MOMENTUM and not FACTORED:
                    scores *= u_lag  # 0 where no query is
                else:
                    if FACTORED:
                        scores = by_factors(scores, carry, column)
                    scores = tl.where(lag >= 0, scores, 0.0)
                grad_v = product(operand(scores, DOT), g, grad_v, DOT)
            Y += fresh
            if FORGETS:
                R = product(tl.trans(g), phi_q, R, DOT)
                Q = tl.full([BV, BD], 0.0, tl.float32)
                Q = operand(product(tl.trans(operand(scaled * b_start[:, None], DOT)), phi_q, Q, DOT), DOT)
            elif MOMENTUM:
                weighted = tl.trans(operand(scaled * u_start[:, None], DOT))  # [BV, BT]
                R = product(weighted, phi_q, R + chunk_carry * Q, DOT)
                weighted = tl.trans(operand(scaled * b_start[:, None], DOT))
                Q = product(weighted, phi_q, chunk_keep * Q, DOT)
            else:
                R = product(tl.trans(g), phi_q, R, DOT)
        grad_k *= slope(keys)
        if lengths is not None:
            seen = (t < left - start)[:, None]
            grad_k = tl.where(seen, grad_k, 0.0)
            grad_v = tl.where(seen, grad_v, 0.0)
        if KEYS:
            tl.store(dk + d_tile, grad_k.to(dk.dtype.element_ty), mask=in_keys)
        if VALUES:
            tl.store(dv + e_tile, grad_v.to(dv.dtype.element_ty), mask=in_values)
        q -= BT * D
        k -= BT * D
        dk -= BT * D
        v -= BT * DV
        do -= BT * DV
        dv -= BT * DV


def gradients(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    do: torch.Tensor,
    den: torch.Tensor,
    s: torch.Tensor | None,
    p: torch.Tensor | None,
    z: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dq, dk and dv of contiguous [batch, heads, n, dim] tensors, from what the forward kept."""
    dq, delta = of_queries(plan, launch, q, k, v, o, do, den, States(s, p, z))
    after = gradient_states(plan, launch, q, do, den, delta)
    return dq, *of_keys_and_values(plan, launch, q, k, v, do, den, delta, after)


def of_queries(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    do: torch.Tensor,
    den: torch.Tensor,
    before: States,
    dq: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """dq, in the tensor given where one is, and delta, from the states that the forward had."""
    if dq is None:
        dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    delta = torch.empty(den.shape, dtype=den.dtype, device=den.device)
    prepared = _prepared(plan, 0, _slots(before))
    launch(prepared, q, k, v, o, do, dq, den, delta, plan.lengths, *before, plan.u, plan.b)
    return dq, delta


def of_keys_and_values(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    do: torch.Tensor,
    den: torch.Tensor,
    delta: torch.Tensor,
    after: States,
    into: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of k and v, in the tensors given where they are, from the sums over the queries after
    each segment."""
    dk, dv = into or tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    for index in range(1, len(plan.gradient_tiles)):
        prepared = _prepared(plan, index, _slots(after))
        launch(prepared, q, k, v, do, dk, dv, den, delta, plan.lengths, *after, plan.u, plan.b)
    return dk, dv


def _slots(states: States) -> int:
    """Those of a (batch, head); 0 where there are no states."""
    return 0 if states.s is None else states.s.shape[1]


@once_a_plan
def _prepared(plan: Plan, index: int, slots: int) -> Prepared:
    """The launch of dq, or of those of dk and dv: that of `gradient_tiles[index]`."""
    case, tiles = plan.case, plan.gradient_tiles[index]
    cut, over = plan.keys if index else plan.queries, plan.decay(tiles.rows)
    flags = {"KEYS": tiles.value_blocks == 1, "VALUES": tiles.head_blocks == 1} if index else {}
    return Prepared(
        key_value_gradients if index else query_gradients,
        (case.batch * case.heads * tiles.head_blocks * tiles.value_blocks, cut.segments),
        (
            *(plan.last, cut.length, case.heads, cut.segment, max(slots, 1)),
            *(case.spec.beta, over.carry, over.keep, plan.gain),
        ),
        {**plan.gradient_constants(cut, tiles), "SEGMENTED": slots > 0, **flags},
        tiles,
    )
