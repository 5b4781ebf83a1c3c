"""Linear and momentum attention of sequences whose keys fit one tile: the parallel form, and its launch."""

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import both, feature_map, operand, product, real_keys, row_sum
from .plan import Plan, once_a_plan

__all__ = ["attention", "rows_of", "scores_of", "weights_of"]


@triton.jit
def rows_of(x, t, left, first, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """The WIDTH columns from `first` on of the rows `t` of x [left, COLUMNS], 0 past both ends."""
    c = first + tl.arange(0, WIDTH)
    mask = both((t < left)[:, None], (c < COLUMNS)[None, :], COLUMNS % WIDTH == 0)
    return tl.load(x + t[:, None] * COLUMNS + c[None, :], mask=mask, other=0.0)


@triton.jit
def scores_of(
    q, k, s, t, i, queries, count, CAUSAL: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, DOT: tl.constexpr
):  # fmt: skip
    """``phi(q_i) . phi(k_j)``, [BM, BN], and which of them count: those of the keys `t` before `count` that
    the query sees. `s` are its rows in q, of which there are `queries`, and `i` their positions."""
    scores = tl.full([s.shape[0], t.shape[0]], 0.0, tl.float32)
    for first in range(0, D, BD):
        phi_q = operand(feature_map(rows_of(q, s, queries, first, D, BD)), DOT)  # [BM, BD]
        phi_k = feature_map(rows_of(k, t, count, first, D, BD))  # [BN, BD]
        if D % BD != 0:  # phi(0) = 1
            phi_k = tl.where((first + tl.arange(0, BD) < D)[None, :], phi_k, 0.0)
        scores = product(phi_q, tl.trans(operand(phi_k, DOT)), scores, DOT)
    seen = tl.broadcast_to((t < count)[None, :], scores.shape)
    if CAUSAL:
        seen = seen & (t[None, :] <= i[:, None])
    return tl.where(seen, scores, 0.0), seen


@triton.jit
def weights_of(u, last, i, t, count, CAUSAL: tl.constexpr):
    """u, [BM, BN] ``u(i-j)`` (eq 13) or, the same for all queries, [1, BN] ``u(N-j)`` (eq 14)."""
    away = i[:, None] - t[None, :] if CAUSAL else (count - 1 - t)[None, :]
    return tl.load(u + tl.minimum(tl.maximum(away, 0), last))


@triton.jit(do_not_specialize=["n", "m", "heads", "last"])
def parallel(
    q, k, v, o, lengths, u, last, n, m, heads, gain, eps,
    MOMENTUM: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Eq 8 and, with `MOMENTUM`, eq 13 or (not `CAUSAL`) 14, from the scores themselves. With u = 1 or
    ``u(n) = 1 - beta^(n+1)`` of the positions between the key and the query, or the sequence's last key::

        o_i = gamma / (1 - beta) sum_j u (phi(q_i) . phi(k_j)) v_j / (sum_j phi(q_i) . phi(k_j) + eps)

    over the keys before the sequence's end in `lengths`, when causal those up to i.

    Tiling: one program takes BM queries of one (batch, head) and all of its m keys, which are BN at most. The
    scores [BM, BN] are all that stays in registers: q and k are taken by BD columns at a time, v and o by BV.
    Traffic: q and o once, k and v once a block of queries, after the first from the L2.
    """
    blocks = (n + BM - 1) // BM
    pid = tl.program_id(0)
    pair, block = (pid // blocks).to(tl.int64), pid % blocks
    count = real_keys(lengths, pair, heads, m)
    s, t = tl.arange(0, BM), tl.arange(0, BN)
    start, i = pair * n + block * BM, block * BM + s
    left = n - block * BM
    # Offsets within a tile are 32 bits wide, those of a tile 64.
    scores, _ = scores_of(q + start * D, k + pair * m * D, s, t, i, left, count, CAUSAL, D, BD, DOT)
    share = gain / (row_sum(scores, 1) + eps)  # [BM]
    if MOMENTUM:
        scores *= weights_of(u, last, i, t, count, CAUSAL)
    weights = operand(scores * share[:, None], DOT)
    for first in range(0, DV, BV):
        values = operand(rows_of(v + pair * m * DV, t, count, first, DV, BV), DOT)  # [BN, BV]
        out = product(weights, values, tl.full([BM, BV], 0.0, tl.float32), DOT)
        put(o + start * DV, out, s, left, first, DV, BV)


@triton.jit
def put(x, tile, t, left, first, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """Stores what `rows_of` would load."""
    c = first + tl.arange(0, WIDTH)
    mask = both((t < left)[:, None], (c < COLUMNS)[None, :], COLUMNS % WIDTH == 0)
    tl.store(x + t[:, None] * COLUMNS + c[None, :], tile.to(x.dtype.element_ty), mask=mask)


def attention(
    plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Attention of contiguous [batch, heads, n, dim] tensors. The backward wants no more than these, so
    `keep` changes nothing."""
    case = plan.case
    shape = (case.batch, case.heads, case.seq_len, case.value_dim)
    o = torch.empty(shape, dtype=q.dtype, device=q.device)
    launch(_prepared(plan), q, k, v, o, plan.lengths, plan.u)
    return o, ()


@once_a_plan
def _prepared(plan: Plan) -> Prepared:
    case, tiles = plan.case, plan.tiles
    return Prepared(
        parallel,
        (case.batch * case.heads * -(-case.seq_len // tiles.rows),),
        (plan.last, case.seq_len, case.kv_len, case.heads, plan.gain, case.spec.eps),
        plan.parallel_constants(tiles),
        tiles,
    )
