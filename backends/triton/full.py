"""Non-causal linear and momentum attention: one state for all queries, and its launch."""

import torch
import triton
import triton.language as tl

from .launch import Launch, Prepared
from .maps import both, feature_map, first_row, operand, product, row_sum, rows_before
from .plan import Plan, once_a_plan
from .states import States, key_value_states

__all__ = ["attention", "output"]


@triton.jit(do_not_specialize=["n", "segment"])
def apply(
    q, o, den, s_in, z_in, n, segment, gain, eps,
    KEEP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BT: tl.constexpr, NV: tl.constexpr, WHOLE: tl.constexpr, GROUPS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``o_i = gamma / (1 - beta) phi(q_i)^T S / (phi(q_i)^T z + eps)``: eq 8 and 14, given the state S of the
    whole sequence, already weighted by position, and z. `KEEP` stores the denominator for the backward.

    Tiling: one program a (batch, head, block of BV values) and segment; it holds the state, transposed,
    [BV, BD], over blocks of BT queries.
    Traffic: q and o once, n (head_dim NV + value_dim) itemsize bytes a (batch, head); the state, 4 BD BV
    bytes, once a segment and mostly from the L2; `KEEP`, 4 n bytes.
    """
    ALL_D: tl.constexpr = D % BD == 0
    ALL_V: tl.constexpr = DV % BV == 0
    pid, part = tl.program_id(0), tl.program_id(1)
    pair, first = (pid // NV).to(tl.int64), part * segment
    head = pair * n + first
    d, e, t = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV), tl.arange(0, BT)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    q += head * D
    q_tile = t[:, None] * D + d[None, :]  # [BT, BD]
    o += head * DV
    o_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    state = operand(tl.load(s_in + pair * (NV * BV * BD) + e[:, None] * BD + d[None, :]), DOT)  # [BV, BD]
    z = operand(first_row(tl.load(z_in + pair * BD + d), 16), DOT)  # a dot takes no fewer columns
    length = tl.minimum(segment, n - first)
    for start in range(0, length, BT):
        real = rows_before(t, length - start, WHOLE)
        queries = tl.load(q + q_tile, mask=both(real[:, None], (d < D)[None, :], ALL_D), other=0.0)
        phi = operand(feature_map(queries), DOT)  # [BT, BD]
        num = product(phi, tl.trans(state), tl.full([BT, BV], 0.0, tl.float32), DOT)
        total = product(phi, tl.trans(z), tl.full([BT, 16], 0.0, tl.float32), DOT)
        total = row_sum(total, 1) + eps  # [BT]; z is 0 where phi is of padding
        if KEEP:  # noqa: SIM102  # the one is settled when compiling, the other when running
            if pid % NV == 0:
                tl.store(den + head + start + t, total, mask=real)
        out = (num * (gain / total)[:, None]).to(o.dtype.element_ty)
        tl.store(o + o_tile, out, mask=both(real[:, None], (e < DV)[None, :], ALL_V))
        q += BT * D
        o += BT * DV


def attention(
    plan: Plan, launch: Launch, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Non-causal attention of contiguous [batch, heads, n, dim] tensors, and with `keep` what `gradients`
    wants."""
    of_all = key_value_states(plan, launch, k, v)
    o, den = output(plan, launch, q, of_all, keep=keep)
    return o, (den, *of_all) if keep else ()


def output(
    plan: Plan,
    launch: Launch,
    q: torch.Tensor,
    of_all: States,
    *,
    keep: bool,
    o: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output, in `o` where that is given, from the state of all keys in one slot; with `keep` also the
    denominators."""
    case = plan.case
    if o is None:
        shape = (case.batch, case.heads, case.seq_len, case.value_dim)
        o = torch.empty(shape, dtype=q.dtype, device=q.device)
    den = torch.empty(o.shape[:3], dtype=torch.float32, device=q.device) if keep else None
    launch(_prepared(plan, keep), q, o, den, of_all.s, of_all.z)
    return o, den


@once_a_plan
def _prepared(plan: Plan, keep: bool) -> Prepared:
    case, cut = plan.case, plan.queries
    return Prepared(
        apply,
        (case.batch * case.heads * plan.tiles.value_blocks, cut.segments),
        (cut.length, cut.segment, plan.gain, case.spec.eps),
        {"KEEP": keep, **plan.constants},
        plan.tiles,
    )
