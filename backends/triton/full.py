"""Non-causal linear and momentum attention: one state for all queries, and its launch."""

import torch
import triton
import triton.language as tl

from .launch import Launch
from .maps import feature_map, operand, product, row_sum
from .plan import Plan
from .states import segment_states

__all__ = ["attention"]


@triton.jit(do_not_specialize=["n", "segment", "segments"])
def apply(
    q, o, s_in, z_in, n, segment, segments, gain, eps,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BT: tl.constexpr,
    NV: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``o_i = gamma / (1 - beta) phi(q_i)^T S / (phi(q_i)^T z + eps)``: eq 8 and 14, given the state S of the
    whole sequence, already weighted by position, and z.

    Tiling: one program a (batch, head, block of BV values) and segment; it adds up the segments' states and
    holds their sum [BD, BV] over blocks of BT queries.
    Traffic: q and o once, n (head_dim NV + value_dim) itemsize bytes a (batch, head); the states, 4 BD BV
    bytes each, once a segment and mostly from the L2.
    """
    pid, part = tl.program_id(0), tl.program_id(1)
    first = part * segment
    head = (pid // NV).to(tl.int64) * n + first
    d, e, t = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV), tl.arange(0, BT)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    q += head * D
    q_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    o += head * DV
    o_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    S = tl.full([BD, BV], 0.0, tl.float32)
    z = tl.full([BD], 0.0, tl.float32)
    slot = pid.to(tl.int64) * segments
    s_in += slot * (BD * BV)
    z_in += slot * BD
    tile = d[:, None] * BV + tl.arange(0, BV)[None, :]  # [BD, BV]
    for _ in range(segments):
        S += tl.load(s_in + tile)
        z += tl.load(z_in + d)
        s_in += BD * BV
        z_in += BD
    state = operand(S, DOT)
    length = tl.minimum(segment, n - first)
    for start in range(0, length, BT):
        real = (t < length - start)[:, None]
        phi = feature_map(tl.load(q + q_tile, mask=real & (d < D)[None, :], other=0.0))  # [BT, BD]
        num = product(operand(phi, DOT), state, tl.full([BT, BV], 0.0, tl.float32), DOT)
        share = 1.0 / (row_sum(phi * z[None, :], 1) + eps)  # [BT]; z is 0 where phi is of padding
        out = (num * share[:, None] * gain).to(o.dtype.element_ty)
        tl.store(o + o_tile, out, mask=real & (e < DV)[None, :])
        q += BT * D
        o += BT * DV


def attention(plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Non-causal attention of contiguous [batch, heads, n, dim] tensors."""
    case = plan.case
    o = torch.empty((case.batch, case.heads, case.seq_len, case.value_dim), dtype=v.dtype, device=v.device)
    s, _, z = segment_states(plan, launch, k, v, to_end=True)
    launch(
        apply,
        (case.batch * case.heads * plan.tiles.value_blocks, plan.segments),
        (q, o, s, z, case.seq_len, plan.segment, plan.segments, plan.gain, case.spec.eps),
        plan.constants,
        plan.tiles,
    )
    return o
