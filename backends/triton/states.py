"""The states of linear and momentum attention at the end of each segment of a sequence."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .launch import Launch
from .maps import feature_map, operand, product, row_sum
from .plan import Plan

__all__ = ["States", "segment_states"]


@triton.jit(do_not_specialize=["n", "segment", "segments", "last"])
def states(
    k, v, s_out, p_out, z_out, u, b, last, n, segment, segments,
    MOMENTUM: tl.constexpr, TO_END: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BV: tl.constexpr, BT: tl.constexpr, NV: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The sums of one segment that eq 8, 13 and 14 need::

        z = sum_j phi(k_j);  S = sum_j u(e-j) phi(k_j) v_j^T;  P = sum_j beta^(e-j) phi(k_j) v_j^T

    with ``u(n) = 1 - beta^(n+1)`` and e the last position of the sequence (`TO_END`: eq 14, which needs no
    P) or of the segment (eq 13). Without `MOMENTUM` u = 1 (eq 8) and there is no P.

    Tiling: one program a (batch, head, block of BV values) and segment, over chunks of BT keys; S and P
    [BD, BV] and z [BD] stay in float32 registers.
    Traffic: k and v once, n (head_dim NV + value_dim) itemsize bytes a (batch, head); the states,
    4 BD BV bytes each, once.
    """
    pid, part = tl.program_id(0), tl.program_id(1)
    first = part * segment
    head = (pid // NV).to(tl.int64) * n + first
    d, e, t = tl.arange(0, BD), (pid % NV) * BV + tl.arange(0, BV), tl.arange(0, BT)
    # Bases are 64 bits wide and move with the chunk; offsets within a tile are 32 and stay.
    k += head * D
    k_tile = t[None, :] * D + d[:, None]  # [BD, BT]
    v += head * DV
    v_tile = t[:, None] * DV + e[None, :]  # [BT, BV]
    length = tl.minimum(segment, n - first)
    end = n - first if TO_END else segment
    S = tl.full([BD, BV], 0.0, tl.float32)
    P = tl.full([BD, BV], 0.0, tl.float32)
    z = tl.full([BD], 0.0, tl.float32)
    for start in range(0, length, BT):
        real = t < length - start
        kT = tl.load(k + k_tile, mask=(d < D)[:, None] & real[None, :], other=0.0)
        values = tl.load(v + v_tile, mask=real[:, None] & (e < DV)[None, :], other=0.0)
        # phi(0) = 1, so padding has to be cut out after the map.
        phi = tl.where((d < D)[:, None] & real[None, :], feature_map(kT), 0.0)  # [BD, BT]
        z += row_sum(phi, 1)
        phi = operand(phi, DOT)
        if MOMENTUM:
            ahead = tl.minimum(tl.maximum(end - 1 - start - t, 0), last)  # [BT], positions after the key
            S = product(phi, operand(values * tl.load(u + ahead)[:, None], DOT), S, DOT)
            if not TO_END:
                P = product(phi, operand(values * tl.load(b + ahead)[:, None], DOT), P, DOT)
        else:
            S = product(phi, operand(values, DOT), S, DOT)
        k += BT * D
        v += BT * DV
    slot = pid.to(tl.int64) * segments + part
    tile = tl.arange(0, BD)[:, None] * BV + tl.arange(0, BV)[None, :]
    tl.store(s_out + slot * (BD * BV) + tile, S)
    if MOMENTUM and not TO_END:
        tl.store(p_out + slot * (BD * BV) + tile, P)
    tl.store(z_out + slot * BD + d, z)


class States(NamedTuple):
    """Float32 sums, a slot for each program and segment."""

    s: torch.Tensor
    """[programs, segments, BD, BV]"""
    p: torch.Tensor | None
    """As s; None where there is no momentum, or all is weighted to the sequence's end."""
    z: torch.Tensor
    """[programs, segments, BD]"""


def segment_states(plan: Plan, launch: Launch, k: torch.Tensor, v: torch.Tensor, to_end: bool) -> States:
    """The states of every segment (`to_end`), or of all but the last, which nobody continues."""
    case, tiles = plan.case, plan.tiles
    momentum = case.spec.kind == "momentum"
    programs = case.batch * case.heads * tiles.value_blocks
    shape = (programs, plan.segments, tiles.head_dim, tiles.value_dim)
    s = torch.empty(shape, dtype=torch.float32, device=k.device)
    p = torch.empty(shape, dtype=torch.float32, device=k.device) if momentum and not to_end else None
    z = torch.empty(shape[:3], dtype=torch.float32, device=k.device)
    launch(
        states,
        (programs, plan.segments if to_end else plan.segments - 1),
        (k, v, s, p, z, plan.u, plan.b, plan.last, case.seq_len, plan.segment, plan.segments),
        {"MOMENTUM": momentum, "TO_END": to_end, **plan.constants},
        tiles,
    )
    return States(s, p, z)
