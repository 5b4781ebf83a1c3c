"""The backward of softmax attention: two kernels and their launch.

With ``p_ij = exp2(factor q_i . k_j - lse_i)`` recomputed from what the forward kept, 0 where i may not see j,
and ``delta_i = do_i . o_i``::

    ds_ij = p_ij (do_i . v_j - delta_i)
    dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i;  dv_j = sum_i p_ij do_i
"""

import math

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import both, real_keys, row_sum, same_dtype
from .plan import Plan, once_a_plan
from .tiles import Tiles

__all__ = ["gradients"]


@triton.jit
def _query_block(
    queries, pull, logs, own, k, v, grad, left, i, j, factor,
    DIAGONAL: tl.constexpr, EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BV: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``dq / scale`` with one block of BN keys added, `left` of which are real."""
    t, d, e = tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BV)
    k_mask, v_mask = (d < D)[:, None], (e < DV)[:, None]
    if EDGE:
        k_mask, v_mask = k_mask & (t < left)[None, :], v_mask & (t < left)[None, :]
    kT = tl.load(k + t[None, :] * D + d[:, None], mask=k_mask, other=0.0)  # [BD, BN]
    vT = tl.load(v + t[None, :] * DV + e[:, None], mask=v_mask, other=0.0)  # [BV, BN]
    scores = same_dtype(queries, kT, None, DOT) * factor - logs[:, None]  # [BM, BN]
    if DIAGONAL:
        scores = tl.where(i[:, None] >= (j + t)[None, :], scores, float("-inf"))
    if EDGE:
        scores = tl.where((t < left)[None, :], scores, float("-inf"))
    ds = tl.exp2(scores) * (same_dtype(pull, vT, None, DOT) - own[:, None])
    return same_dtype(ds.to(kT.dtype), tl.trans(kT), grad, DOT)


@triton.jit(do_not_specialize=["n", "m", "heads"])
def softmax_query_gradients(
    q, k, v, o, do, dq, lse, delta, lengths, n, m, heads, factor, scale,
    CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Computes delta, for the kernel after it, and dq.

    Tiling: one program takes BM queries of one (batch, head) over blocks of BN keys; dq [BM, BD] stays in
    float32 registers. When causal, blocks above the diagonal are skipped, only those on it are masked, and
    the programs with the most blocks start first.
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
    rows = tl.arange(0, BM)
    i = first + rows
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    real = i < n
    in_rows = both(real[:, None], (d < D)[None, :], ALL_D)
    in_values = both(real[:, None], (e < DV)[None, :], ALL_V)
    # Offsets within a tile are 32 bits wide, those of a tile 64.
    at, at_value = (head + first) * D, (head + first) * DV
    d_tile, e_tile = rows[:, None] * D + d[None, :], rows[:, None] * DV + e[None, :]
    queries = tl.load(q + at + d_tile, mask=in_rows, other=0.0)  # [BM, BD]
    outputs = tl.load(o + at_value + e_tile, mask=in_values, other=0.0)  # [BM, BV]
    pull = tl.load(do + at_value + e_tile, mask=in_values, other=0.0)  # [BM, BV]
    own = row_sum(outputs.to(tl.float32) * pull.to(tl.float32), 1)  # [BM]
    tl.store(delta + head + i, own, mask=real)
    logs = tl.load(lse + head + i, mask=real, other=0.0)
    k += pair * m * D
    v += pair * m * DV
    grad = tl.full([BM, BD], 0.0, tl.float32)
    free = count // BN * BN  # that many keys are seen by every query of the block
    stop = count
    if CAUSAL:
        free = tl.minimum(free, first // BN * BN)
        stop = tl.minimum(stop, first + BM)
    for j in range(0, free, BN):
        grad = _query_block(
            queries, pull, logs, own, k, v, grad, count - j, i, j, factor,
            False, False, D, DV, BD, BV, BN, DOT,
        )  # fmt: skip
        k += BN * D
        v += BN * DV
    for j in range(free, stop, BN):
        grad = _query_block(
            queries, pull, logs, own, k, v, grad, count - j, i, j, factor,
            CAUSAL, True, D, DV, BD, BV, BN, DOT,
        )  # fmt: skip
        k += BN * D
        v += BN * DV
    tl.store(dq + at + d_tile, (grad * scale).to(dq.dtype.element_ty), mask=in_rows)


@triton.jit
def _key_block(
    keys, values, q, do, lse, delta, grad_k, grad_v, left, i, j, factor,
    DIAGONAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BM: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``dk / scale`` and dv with one block of BM queries added, `left` of which are real. Scores have a row a
    key, so that they are multiplied from registers."""
    t, d, e = tl.arange(0, BM), tl.arange(0, BD), tl.arange(0, BV)
    real = (t < left)[:, None]
    queries = tl.load(
        q + t[:, None] * D + d[None, :], mask=both(real, (d < D)[None, :], D % BD == 0), other=0.0
    )
    pull = tl.load(
        do + t[:, None] * DV + e[None, :], mask=both(real, (e < DV)[None, :], DV % BV == 0), other=0.0
    )  # [BM, BV]
    logs = tl.load(lse + t, mask=t < left, other=float("inf"))  # what is not real has no weight
    own = tl.load(delta + t, mask=t < left, other=0.0)
    scores = same_dtype(keys, tl.trans(queries), None, DOT) * factor - logs[None, :]  # [BN, BM]
    if DIAGONAL:
        scores = tl.where((i + t)[None, :] >= j[:, None], scores, float("-inf"))
    p = tl.exp2(scores)
    grad_v = same_dtype(p.to(pull.dtype), pull, grad_v, DOT)
    ds = p * (same_dtype(values, tl.trans(pull), None, DOT) - own[None, :])
    return same_dtype(ds.to(queries.dtype), queries, grad_k, DOT), grad_v


@triton.jit(do_not_specialize=["n", "m", "heads"])
def softmax_key_value_gradients(
    q, k, v, do, dk, dv, lse, delta, lengths, n, m, heads, factor, scale,
    CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Computes dk and dv. Keys past their sequence's `lengths` get zeros.

    Tiling: one program takes BN keys of one (batch, head) over blocks of BM queries, those that may see a key
    of its own; dk [BN, BD] and dv [BN, BV] stay in float32 registers. When causal, only the blocks on the
    diagonal are masked.
    Traffic: k, v, dk and dv once, q and do once a block of keys, most of it from the L2.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    blocks = (m + BN - 1) // BN
    pid = tl.program_id(0)
    pair = (pid // blocks).to(tl.int64)
    count = real_keys(lengths, pair, heads, m)
    first = (pid % blocks) * BN
    rows = tl.arange(0, BN)
    j = first + rows
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    seen, real = (j < count)[:, None], (j < m)[:, None]  # padding may be anything
    at, at_value = (pair * m + first) * D, (pair * m + first) * DV
    d_tile, e_tile = rows[:, None] * D + d[None, :], rows[:, None] * DV + e[None, :]
    in_head, in_value = (d < D)[None, :], (e < DV)[None, :]
    keys = tl.load(k + at + d_tile, mask=both(seen, in_head, ALL_D), other=0.0)  # [BN, BD]
    values = tl.load(v + at_value + e_tile, mask=both(seen, in_value, ALL_V), other=0.0)  # [BN, BV]
    start = first // BM * BM if CAUSAL else 0
    free = start  # from there on every query sees every key of the block
    if CAUSAL:
        free = tl.minimum((first + BN + BM - 1) // BM * BM, (n + BM - 1) // BM * BM)
        free = tl.maximum(free, start)
    row = pair * n + start
    q += row * D
    do += row * DV
    lse += row
    delta += row
    grad_k = tl.full([BN, BD], 0.0, tl.float32)
    grad_v = tl.full([BN, BV], 0.0, tl.float32)
    for i in range(start, free, BM):
        grad_k, grad_v = _key_block(
            keys, values, q, do, lse, delta, grad_k, grad_v, n - i, i, j, factor,
            CAUSAL, D, DV, BD, BV, BM, DOT,
        )  # fmt: skip
        q += BM * D
        do += BM * DV
        lse += BM
        delta += BM
    for i in range(free, n, BM):
        grad_k, grad_v = _key_block(
            keys, values, q, do, lse, delta, grad_k, grad_v, n - i, i, j, factor,
            False, D, DV, BD, BV, BM, DOT,
        )  # fmt: skip
        q += BM * D
        do += BM * DV
        lse += BM
        delta += BM
    # A key that is not real has a weight all the same: of a score of 0, which no query's sum has in it.
    grad_k = tl.where(seen, grad_k * scale, 0.0).to(dk.dtype.element_ty)
    grad_v = tl.where(seen, grad_v, 0.0).to(dv.dtype.element_ty)
    tl.store(dk + at + d_tile, grad_k, mask=both(real, in_head, ALL_D))
    tl.store(dv + at_value + e_tile, grad_v, mask=both(real, in_value, ALL_V))


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
    dq, dk, dv, delta = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v, lse))
    of_queries, of_keys = _prepared(plan)
    launch(of_queries, q, k, v, o, do, dq, lse, delta, plan.lengths)
    launch(of_keys, q, k, v, do, dk, dv, lse, delta, plan.lengths)
    return dq, dk, dv


@once_a_plan
def _prepared(plan: Plan) -> tuple[Prepared, Prepared]:
    case, (by_queries, by_keys) = plan.case, plan.gradient_tiles
    scale = case.softmax_scale

    def of(kernel: triton.JITFunction, length: int, own: int, tiles: Tiles) -> Prepared:
        return Prepared(
            kernel,
            (case.batch * case.heads * -(-length // own),),
            (case.seq_len, case.kv_len, case.heads, scale * math.log2(math.e), scale),
            plan.softmax_constants(tiles),
            tiles,
        )

    return (
        of(softmax_query_gradients, case.seq_len, by_queries.rows, by_queries),
        of(softmax_key_value_gradients, case.kv_len, by_keys.keys, by_keys),
    )
