"""The backward of the parallel form: one kernel, and its launch or two.

With the weights ``w_ij = gamma / (1 - beta) u (phi(q_i) . phi(k_j)) / den_i`` that the forward multiplies the
values by, made anew, 0 where i may not see j, and ``delta_i = do_i . o_i / den_i``::

    delta_i   = sum_j w_ij (do_i . v_j) / den_i
    t_ij      = gamma / (1 - beta) u (do_i . v_j) / den_i - delta_i
    dphi(q_i) = sum_j t_ij phi(k_j);  dphi(k_j) = sum_i t_ij phi(q_i);  dv_j = sum_i w_ij do_i

and phi'(x) = 1 above 0, exp(x) below.
"""

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import feature_map, operand, product, real_keys, row_sum, slope
from .parallel import put, rows_of, scores_of, weights_of
from .plan import Plan, once_a_plan
from .tiles import Tiles

__all__ = ["gradients"]


@triton.jit(do_not_specialize=["n", "m", "heads", "last"])
def parallel_gradients(
    q, k, v, do, dq, dk, dv, den, delta, lengths, u, last, n, m, heads, gain, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, MOMENTUM: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Computes dq (`QUERIES`), for which BN is all keys at least, and dk and dv (`KEYS`) or the part of them
    that comes from the program's queries. Keys past their sequence's `lengths` get zeros.

    Without `QUERIES` the keys may be in blocks, so that den and delta have to be given; without `KEYS` both
    are stored for that.

    Tiling: one program takes BM queries and BN keys of one (batch, head). w and t [BM, BN] are all that stays
    in registers: q and k are taken by BD columns at a time, v and do by BV, each of them twice, the second
    time from the L1 or the L2.
    Traffic: q and do once a block of keys, k and v once a block of queries; dq once; dk and dv once a block
    of queries; den and delta, 8 n bytes, where there are two launches.
    """
    blocks, key_blocks = (n + BM - 1) // BM, (m + BN - 1) // BN
    pid = tl.program_id(0)
    part, key_block = (pid // key_blocks).to(tl.int64), pid % key_blocks
    pair, block = part // blocks, (part % blocks).to(tl.int32)
    s, t = tl.arange(0, BM), tl.arange(0, BN)
    i, j = block * BM + s, key_block * BN + t
    left = n - block * BM
    count = real_keys(lengths, pair, heads, m)
    # Offsets within a tile are 32 bits wide, those of a tile 64.
    row, key = pair * n + block * BM, pair * m
    q += row * D
    do += row * DV
    k += key * D
    v += key * DV
    scores, seen = scores_of(q, k, s, j, i, left, count, CAUSAL, D, BD, DOT)
    pulls = tl.full([BM, BN], 0.0, tl.float32)  # do_i . v_j
    for first in range(0, DV, BV):
        pull = operand(rows_of(do, s, left, first, DV, BV), DOT)  # [BM, BV]
        values = operand(rows_of(v, j, count, first, DV, BV), DOT)  # [BN, BV]
        pulls = product(pull, tl.trans(values), pulls, DOT)
    total = row_sum(scores, 1) + eps if QUERIES else tl.load(den + row + s, mask=s < left, other=1.0)  # [BM]
    share = (gain / total)[:, None]
    if MOMENTUM:
        share = share * weights_of(u, last, i, j, count, CAUSAL)
    weights = scores * share
    if QUERIES:
        own = row_sum(weights * pulls, 1) / total  # [BM], delta; 0 where there is no query, as do is
    else:
        own = tl.load(delta + row + s, mask=s < left, other=0.0)
    if QUERIES and not KEYS:
        tl.store(den + row + s, total, mask=s < left)
        tl.store(delta + row + s, own, mask=s < left)
    turn = operand(tl.where(seen, share * pulls - own[:, None], 0.0), DOT)  # [BM, BN], t
    if QUERIES:
        for first in range(0, D, BD):
            phi_k = operand(feature_map(rows_of(k, j, count, first, D, BD)), DOT)  # [BN, BD]
            grad = product(turn, phi_k, tl.full([BM, BD], 0.0, tl.float32), DOT)
            grad *= slope(rows_of(q, s, left, first, D, BD))
            put(dq + row * D, grad, s, left, first, D, BD)
    if KEYS:
        # Where there are several blocks of queries, each has dk and dv of its own, in float32.
        dk += part * m * D
        dv += part * m * DV
        turned, weighted = tl.trans(turn), tl.trans(operand(weights, DOT))  # [BN, BM]
        for first in range(0, D, BD):
            phi_q = operand(feature_map(rows_of(q, s, left, first, D, BD)), DOT)  # [BM, BD]
            grad = product(turned, phi_q, tl.full([BN, BD], 0.0, tl.float32), DOT)
            grad *= slope(rows_of(k, j, count, first, D, BD))
            if lengths is not None:  # else a NaN in q would reach what is padding
                grad = tl.where((j < count)[:, None], grad, 0.0)
            put(dk, grad, j, m, first, D, BD)
        for first in range(0, DV, BV):
            pull = operand(rows_of(do, s, left, first, DV, BV), DOT)  # [BM, BV]
            grad = product(weighted, pull, tl.full([BN, BV], 0.0, tl.float32), DOT)
            if lengths is not None:
                grad = tl.where((j < count)[:, None], grad, 0.0)
            put(dv, grad, j, m, first, DV, BV)


def gradients(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    do: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dq, dk and dv of contiguous [batch, heads, n, dim] tensors. `o` is not looked at."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    launches = _prepared(plan)
    den = delta = None
    if len(launches) > 1:
        den, delta = (torch.empty(q.shape[:3], dtype=torch.float32, device=q.device) for _ in range(2))
    blocks = -(-plan.case.seq_len // plan.gradient_tiles[-1].rows)
    parts = (dk, dv) if blocks == 1 else tuple(_in_parts(x, blocks) for x in (dk, dv))
    for prepared in launches:
        launch(prepared, q, k, v, do, dq, *parts, den, delta, plan.lengths, plan.u)
    if blocks > 1:
        dk, dv = (part.sum(2).to(k.dtype) for part in parts)
    return dq, dk, dv


@once_a_plan
def _prepared(plan: Plan) -> tuple[Prepared, ...]:
    """The launch, or the one by queries and the one by keys."""
    case, last = plan.case, len(plan.gradient_tiles) - 1

    def of(index: int, tiles: Tiles) -> Prepared:
        programs = -(-case.seq_len // tiles.rows) * -(-case.kv_len // tiles.keys)
        return Prepared(
            parallel_gradients,
            (case.batch * case.heads * programs,),
            (plan.last, case.seq_len, case.kv_len, case.heads, plan.gain, case.spec.eps),
            {"QUERIES": index == 0, "KEYS": index == last, **plan.parallel_constants(tiles)},
            tiles,
        )

    return tuple(of(index, tiles) for index, tiles in enumerate(plan.gradient_tiles))


def _in_parts(x: torch.Tensor, blocks: int) -> torch.Tensor:
    """One x for each block of queries, [batch, heads, blocks, m, dim] float32."""
    return torch.empty((*x.shape[:2], blocks, *x.shape[2:]), dtype=torch.float32, device=x.device)
