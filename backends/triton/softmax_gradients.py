"""The backward of softmax attention: two kernels and their launch."""

import math

import torch
import triton
import triton.language as tl

from .launch import Launch
from .maps import both, real_keys, row_sum, same_dtype
from .plan import Plan
from .tiles import softmax_gradient_tiles

__all__ = ["gradients"]


@triton.jit
def _weights(q, kT, lse, i, j, n, keys, factor, CAUSAL: tl.constexpr, DOT: tl.constexpr):
    """``p_ij = exp2(factor q_i . k_j - lse_i)``, 0 where i may not see j or either is none."""
    scores = same_dtype(q, kT, None, DOT) * factor
    seen = (i < n)[:, None] & (j < keys)[None, :]
    if CAUSAL:
        seen = seen & (i[:, None] >= j[None, :])
    return tl.exp2(tl.where(seen, scores - lse[:, None], float("-inf")))


@triton.jit(do_not_specialize=["n", "m", "heads"])
def softmax_query_gradients(
    q, k, v, o, do, dq, lse, delta, lengths, n, m, heads, factor, scale,
    CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``delta_i = do_i . o_i`` and ``dq_i = scale sum_j p_ij (do_i . v_j - delta_i) k_j``, p recomputed.

    Tiling: one program takes BM queries of one (batch, head) over blocks of BN keys; dq [BM, BD] stays in
    float32 registers.
    Traffic: q, o, do and dq once, k and v once a block of queries, most of it from the L2.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    blocks = (n + BM - 1) // BM
    pid = tl.program_id(0)
    pair = (pid // blocks).to(tl.int64)
    head = pair * n
    count = real_keys(lengths, pair, heads, m)
    block = pid % blocks
    if CAUSAL:
        block = blocks - 1 - block
    first = block * BM
    rows, t = tl.arange(0, BM), tl.arange(0, BN)
    i = first + rows
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    in_head, in_value, real = d < D, e < DV, i < n
    at, at_value = (head + first) * D, (head + first) * DV
    d_tile, e_tile = rows[:, None] * D + d[None, :], rows[:, None] * DV + e[None, :]
    queries = tl.load(
        q + at + d_tile, mask=both(real[:, None], in_head[None, :], ALL_D), other=0.0
    )  # [BM, BD]
    outputs = tl.load(
        o + at_value + e_tile, mask=both(real[:, None], in_value[None, :], ALL_V), other=0.0
    )  # [BM, BV]
    pull = tl.load(
        do + at_value + e_tile, mask=both(real[:, None], in_value[None, :], ALL_V), other=0.0
    )  # [BM, BV]
    own = row_sum(outputs.to(tl.float32) * pull.to(tl.float32), 1)  # [BM]
    tl.store(delta + head + i, own, mask=real)
    logs = tl.load(lse + head + i, mask=real, other=0.0)
    k += pair * m * D
    v += pair * m * DV
    grad = tl.full([BM, BD], 0.0, tl.float32)
    stop = tl.minimum(first + BM, count) if CAUSAL else count
    for j in range(0, stop, BN):
        here = (j + t) < count
        kT = tl.load(
            k + t[None, :] * D + d[:, None], mask=both(here[None, :], in_head[:, None], ALL_D), other=0.0
        )
        vT = tl.load(
            v + t[None, :] * DV + e[:, None], mask=both(here[None, :], in_value[:, None], ALL_V), other=0.0
        )
        p = _weights(queries, kT, logs, i, j + t, n, count, factor, CAUSAL, DOT)  # [BM, BN]
        ds = p * (same_dtype(pull, vT, None, DOT) - own[:, None])
        grad = same_dtype(ds.to(kT.dtype), tl.trans(kT), grad, DOT)
        k += BN * D
        v += BN * DV
    out = (grad * scale).to(dq.dtype.element_ty)
    tl.store(dq + at + d_tile, out, mask=both(real[:, None], in_head[None, :], ALL_D))


@triton.jit(do_not_specialize=["n", "m", "heads"])
def softmax_key_value_gradients(
    q, k, v, do, dk, dv, lse, delta, lengths, n, m, heads, factor, scale,
    CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``dv_j = sum_i p_ij do_i`` and ``dk_j = scale sum_i p_ij (do_i . v_j - delta_i) q_i``, p recomputed.

    Tiling: one program takes BN keys of one (batch, head) over blocks of BM queries, those that may see a key
    of its own; dk [BN, BD] and dv [BN, BV] stay in float32 registers.
    Traffic: k, v, dk and dv once, q and do once a block of keys, most of it from the L2.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    blocks = (m + BN - 1) // BN
    pid = tl.program_id(0)
    pair = (pid // blocks).to(tl.int64)
    head = pair * n
    count = real_keys(lengths, pair, heads, m)
    first = (pid % blocks) * BN
    rows, t = tl.arange(0, BN), tl.arange(0, BM)
    j = first + rows
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    in_head, in_value, real = d < D, e < DV, j < m
    seen = j < count  # padding may be anything
    at, at_value = (pair * m + first) * D, (pair * m + first) * DV
    d_tile, e_tile = rows[:, None] * D + d[None, :], rows[:, None] * DV + e[None, :]
    keys = tl.load(k + at + d_tile, mask=both(seen[:, None], in_head[None, :], ALL_D), other=0.0)  # [BN, BD]
    values = tl.load(
        v + at_value + e_tile, mask=both(seen[:, None], in_value[None, :], ALL_V), other=0.0
    )  # [BN, BV]
    start = first // BM * BM if CAUSAL else 0
    q += (head + start) * D
    do += (head + start) * DV
    grad_k = tl.full([BN, BD], 0.0, tl.float32)
    grad_v = tl.full([BN, BV], 0.0, tl.float32)
    for index in range(start, n, BM):
        i = index + t
        here = (i < n)[:, None]
        queries = tl.load(q + t[:, None] * D + d[None, :], mask=here & in_head[None, :], other=0.0)
        pull = tl.load(do + t[:, None] * DV + e[None, :], mask=here & in_value[None, :], other=0.0)
        logs = tl.load(lse + head + i, mask=i < n, other=0.0)
        own = tl.load(delta + head + i, mask=i < n, other=0.0)
        p = _weights(queries, tl.trans(keys), logs, i, j, n, count, factor, CAUSAL, DOT)  # [BM, BN]
        grad_v = same_dtype(tl.trans(p.to(pull.dtype)), pull, grad_v, DOT)
        ds = p * (same_dtype(pull, tl.trans(values), None, DOT) - own[:, None])
        grad_k = same_dtype(tl.trans(ds.to(queries.dtype)), queries, grad_k, DOT)
        q += BM * D
        do += BM * DV
    out = (grad_k * scale).to(dk.dtype.element_ty)
    tl.store(dk + at + d_tile, out, mask=both(real[:, None], in_head[None, :], ALL_D))
    tl.store(
        dv + at_value + e_tile,
        grad_v.to(dv.dtype.element_ty),
        mask=both(real[:, None], in_value[None, :], ALL_V),
    )


def gradients(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    do: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dq, dk and dv of contiguous [batch, heads, n, dim] tensors, from what the forward kept."""
    case = plan.case
    dq, dk, dv, delta = (torch.empty_like(x) for x in (q, k, v, lse))
    scale = case.softmax_scale
    for kernel, tensors, length, by_keys in (
        (softmax_query_gradients, (q, k, v, o, do, dq), case.seq_len, False),
        (softmax_key_value_gradients, (q, k, v, do, dk, dv), case.kv_len, True),
    ):
        tiles = softmax_gradient_tiles(case, by_keys=by_keys)
        own = tiles.keys if by_keys else tiles.rows
        launch(
            kernel,
            (case.batch * case.heads * -(-length // own),),
            (
                *(*tensors, lse, delta, plan.lengths, case.seq_len, case.kv_len, case.heads),
                *(scale * math.log2(math.e), scale),
            ),
            plan.softmax_constants(tiles),
            tiles,
        )
    return dq, dk, dv
