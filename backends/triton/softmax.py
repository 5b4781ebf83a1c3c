"""Softmax attention by online softmax: the kernel and its launch."""

import math

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import real_keys, row_max, row_sum, same_dtype
from .plan import Plan, once_a_plan

__all__ = ["attention"]


@triton.jit
def _block(
    q, k, v, left, i, j, best, total, acc, factor,
    DIAGONAL: tl.constexpr, EDGE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BD: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """One block of BN keys, `left` of which are real: scores, the new row maximum, the rescaled sums."""
    t, d, e = tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BV)
    k_mask, v_mask = (d < D)[:, None], (e < DV)[None, :]
    if EDGE:
        k_mask, v_mask = k_mask & (t < left)[None, :], v_mask & (t < left)[:, None]
    kT = tl.load(k + t[None, :] * D + d[:, None], mask=k_mask, other=0.0)  # [BD, BN]
    scores = same_dtype(q, kT, None, DOT) * factor  # [BM, BN], in base 2
    if DIAGONAL:
        scores = tl.where(i[:, None] >= (j + t)[None, :], scores, float("-inf"))
    if EDGE:
        scores = tl.where((t < left)[None, :], scores, float("-inf"))
    # Finite from the first block on: every query sees key 0.
    higher = tl.maximum(best, row_max(scores, 1))  # [BM]
    p = tl.exp2(scores - higher[:, None])  # [BM, BN]
    shrink = tl.exp2(best - higher)
    values = tl.load(v + t[:, None] * DV + e[None, :], mask=v_mask, other=0.0)  # [BN, BV]
    acc = same_dtype(p.to(values.dtype), values, acc * shrink[:, None], DOT)
    return higher, total * shrink + row_sum(p, 1), acc


@triton.jit(do_not_specialize=["n", "m", "heads"])
def softmax(
    q, k, v, o, lse, lengths, n, m, heads, factor,
    CAUSAL: tl.constexpr, KEEP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Eq 1, ``o_i = sum_j softmax_j(scale q_i . k_j) v_j``, by online softmax (flash style).

    Tiling: one program takes BM queries of one (batch, head) over blocks of BN keys, and keeps the row
    maximum and sum [BM] and the output [BM, BV] in float32. When causal, blocks above the diagonal are
    skipped, only those on it are masked, and the programs with the most blocks start first.
    Traffic: q and o once, (head_dim + value_dim) * itemsize bytes a query; k and v once a block of queries,
    most of it from the L2. Nothing else is written.

    `factor` is scale * log2(e), as exp2 is what the hardware has. `KEEP` stores the logarithm of each row's
    sum, to base 2, for the backward. There are n queries and m keys, of which `lengths` may say that fewer
    are real.
    """
    blocks = (n + BM - 1) // BM
    pid = tl.program_id(0)
    pair = (pid // blocks).to(tl.int64)
    head = pair * n
    keys = real_keys(lengths, pair, heads, m)
    block = pid % blocks
    if CAUSAL:
        block = blocks - 1 - block
    first = block * BM
    i = first + tl.arange(0, BM)
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    rows = tl.arange(0, BM)[:, None]
    real = (i < n)[:, None]
    # Offsets within a tile are 32 bits wide, those of a tile 64.
    q += (head + first) * D
    o += (head + first) * DV
    k += pair * m * D
    v += pair * m * DV
    queries = tl.load(q + rows * D + d[None, :], mask=real & (d < D)[None, :], other=0.0)  # [BM, BD]
    best = tl.full([BM], float("-inf"), tl.float32)
    total = tl.full([BM], 0.0, tl.float32)
    acc = tl.full([BM, BV], 0.0, tl.float32)

    free = keys // BN * BN  # that many keys are seen by every query of the block
    stop = keys
    if CAUSAL:
        free = tl.minimum(free, first)
        stop = tl.minimum(stop, first + BM)
    for j in range(0, free, BN):
        best, total, acc = _block(
            queries, k, v, keys - j, i, j, best, total, acc, factor,
            False, False, D, DV, BD, BV, BN, DOT,
        )  # fmt: skip
        k += BN * D
        v += BN * DV
    for j in range(free, stop, BN):
        best, total, acc = _block(
            queries, k, v, keys - j, i, j, best, total, acc, factor,
            CAUSAL, True, D, DV, BD, BV, BN, DOT,
        )  # fmt: skip
        k += BN * D
        v += BN * DV
    if KEEP:
        tl.store(lse + head + i, best + tl.log2(total), mask=i < n)
    out = (acc / total[:, None]).to(o.dtype.element_ty)
    tl.store(o + rows * DV + e[None, :], out, mask=real & (e < DV)[None, :])


def attention(
    plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Softmax attention of contiguous [batch, heads, n, dim] tensors; with `keep` also the logarithm of each
    row's sum, to base 2, [batch, heads, n] float32."""
    case = plan.case
    o = torch.empty((case.batch, case.heads, case.seq_len, case.value_dim), dtype=v.dtype, device=v.device)
    lse = torch.empty(o.shape[:3], dtype=torch.float32, device=v.device) if keep else None
    launch(_prepared(plan, keep), q, k, v, o, lse, plan.lengths)
    return o, (lse,) if keep else ()


@once_a_plan
def _prepared(plan: Plan, keep: bool) -> Prepared:
    case, tiles = plan.case, plan.tiles
    return Prepared(
        softmax,
        (case.batch * case.heads * -(-case.seq_len // tiles.rows),),
        (case.seq_len, case.kv_len, case.heads, case.softmax_scale * math.log2(math.e)),
        {"KEEP": keep, **plan.softmax_constants(tiles)},
        tiles,
    )
