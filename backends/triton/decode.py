"""Decoding: one token for a batch of sequences, with the state of linear or momentum attention in place.

::

    state = empty_state(spec, batch=64, heads=16, head_dim=64, value_dim=64, device="cuda")
    o = step(spec, q, k, v, state)  # and so on with the next token, by the same tensors of the state

Nothing but one kernel is launched, so a CUDA graph can hold the call.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mtbench.errors import BadInput
from mtbench.spec import AttentionSpec

from ..torch_forms.linear import phi
from .launch import Launch, Prepared, start
from .maps import feature_map, row_sum
from .tables import weights
from .tiles import MAX_DIM, Tiles

__all__ = ["DecodeState", "empty_state", "state_after", "step"]

ELEMENTS = 2048
"""Of a state, that one program of `advance` takes: few, since a batch may be a handful of sequences."""


class DecodeState(NamedTuple):
    """What the tokens so far leave behind, float32; O(head_dim value_dim) whatever their number."""

    s: torch.Tensor
    """The sum, [batch, heads, value_dim, head_dim], a key n tokens back weighted 1 - beta^(n+1)."""
    p: torch.Tensor | None
    """The momentum, like s, weighted beta^n; None for linear attention."""
    z: torch.Tensor
    """The normaliser's sum, [batch, heads, blocks, head_dim]: a copy for each program with part of s."""


@triton.jit
def advance(
    q, k, v, o, s, p, z, beta, fresh, gain, eps,
    MOMENTUM: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Eq 12 for one token (eq 8 without `MOMENTUM`), in place::

        P <- beta P + phi(k) v^T;  S <- S + (1 - beta) P;  z <- z + phi(k)
        o = gamma / (1 - beta) phi(q)^T S / (phi(q)^T z + eps)

    `fresh` is 1 - beta, which float32 would not have exactly from beta.

    Tiling: one program a (batch, head) and BV values; its part of S and P, [BV, BD], once through registers.
    Traffic: S, P and z once in and once out, 16 head_dim value_dim bytes a (batch, head), half of that
    without `MOMENTUM`, and 8 head_dim a program; q and k once a program, v and o once.
    """
    pid = tl.program_id(0)
    pair, block = (pid // BLOCKS).to(tl.int64), pid % BLOCKS
    d, e = tl.arange(0, BD), block * BV + tl.arange(0, BV)
    in_head, in_value = d < D, e < DV
    phi_q = tl.where(in_head, feature_map(tl.load(q + pair * D + d, mask=in_head, other=0.0)), 0.0)  # [BD]
    phi_k = tl.where(in_head, feature_map(tl.load(k + pair * D + d, mask=in_head, other=0.0)), 0.0)
    values = tl.load(v + pair * DV + e, mask=in_value, other=0.0).to(tl.float32)  # [BV]
    tile = pair * (DV * D) + e[:, None] * D + d[None, :]
    held = in_value[:, None] & in_head[None, :]
    z += pid.to(tl.int64) * D
    S = tl.load(s + tile, mask=held, other=0.0)  # [BV, BD]
    Z = tl.load(z + d, mask=in_head, other=0.0) + phi_k  # [BD]
    added = values[:, None] * phi_k[None, :]
    if MOMENTUM:
        P = beta * tl.load(p + tile, mask=held, other=0.0) + added
        S += fresh * P
    else:
        S += added
    # Several threads hold the same number where a tile has fewer than the program has threads: all of them
    # have to have read it before one writes.
    tl.debug_barrier()
    if MOMENTUM:
        tl.store(p + tile, P, mask=held)
    tl.store(s + tile, S, mask=held)
    tl.store(z + d, Z, mask=in_head)
    den = row_sum(phi_q * Z, 0) + eps
    out = row_sum(S * phi_q[None, :], 1) * (gain / den)  # [BV]
    tl.store(o + pair * DV + e, out.to(o.dtype.element_ty), mask=in_value)


def empty_state(
    spec: AttentionSpec, *, batch: int, heads: int, head_dim: int, value_dim: int, device: str
) -> DecodeState:
    """The state before the first token.

    Raises:
        BadInput: softmax attention, which has no such state, or a dim past the largest.
    """
    if spec.kind == "softmax":
        raise BadInput("softmax attention has no state of a fixed size: use linear or momentum attention")
    if max(head_dim, value_dim) > MAX_DIM:
        raise BadInput(f"head_dim and value_dim are at most {MAX_DIM} here, not {head_dim} and {value_dim}")
    shape = (batch, heads, value_dim, head_dim)
    blocks = _tiles(head_dim, value_dim).value_blocks
    return DecodeState(
        s=torch.zeros(shape, device=device),
        p=torch.zeros(shape, device=device) if spec.kind == "momentum" else None,
        z=torch.zeros((batch, heads, blocks, head_dim), device=device),
    )


def state_after(spec: AttentionSpec, k: torch.Tensor, v: torch.Tensor) -> DecodeState:
    """The state after a prompt, k [batch, heads, n, head_dim] and v [batch, heads, n, value_dim] (eq 13).

    In float32 and by matrix products of torch: it is done once a prompt.
    """
    (batch, heads, n, head_dim), value_dim = k.shape, v.shape[3]
    state = empty_state(
        spec, batch=batch, heads=heads, head_dim=head_dim, value_dim=value_dim, device=str(k.device)
    )
    phi_k = phi(k.float())
    vT = v.float().transpose(2, 3)
    state.z.copy_(phi_k.sum(2, keepdim=True).expand_as(state.z))
    if state.p is None:
        state.s.copy_(vT @ phi_k)
        return state
    u, b = weights(spec.beta, n, str(k.device))
    back = torch.arange(n - 1, -1, -1, device=k.device).clamp(max=u.numel() - 1)  # from each key to the last
    state.s.copy_(vT @ (phi_k * u[back][:, None]))
    state.p.copy_(vT @ (phi_k * b[back][:, None]))
    return state


def step(
    spec: AttentionSpec,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: DecodeState,
    *,
    launch: Launch = start,
) -> torch.Tensor:
    """The next token's output [batch, heads, value_dim], in v's dtype; `state` is moved on by that token.

    Args:
        spec: what the state was made for; its feature map and eps.
        q: the token's query, [batch, heads, head_dim], contiguous, as all are.
        k: its key, [batch, heads, head_dim].
        v: its value, [batch, heads, value_dim].
        state: of `empty_state` or `state_after`, or what an earlier step left.
        launch: how kernels are started.

    Raises:
        BadInput: a tensor that is not contiguous or has not the state's shape, or another attention's state.
    """
    batch, heads, value_dim, head_dim = state.s.shape
    shapes = {"q": (q, head_dim), "k": (k, head_dim), "v": (v, value_dim)}
    for name, (tensor, dim) in shapes.items():
        if tensor.shape != (batch, heads, dim) or not tensor.is_contiguous():
            found = f"{list(tensor.shape)}{'' if tensor.is_contiguous() else ', not contiguous'}"
            raise BadInput(f"{name} must be [{batch}, {heads}, {dim}] and contiguous, and is {found}")
    if (state.p is None) == (spec.kind == "momentum"):
        raise BadInput(f"the state is not one of {spec.kind} attention: make one with empty_state(spec, ...)")
    o = torch.empty((batch, heads, value_dim), dtype=v.dtype, device=v.device)
    launch(_prepared(spec, batch * heads, head_dim, value_dim, state.z.shape[2]), q, k, v, o, *state)
    return o


@functools.lru_cache(maxsize=256)
def _prepared(spec: AttentionSpec, pairs: int, head_dim: int, value_dim: int, blocks: int) -> Prepared:
    tiles = _tiles(head_dim, value_dim)
    return Prepared(
        advance,
        (pairs * blocks,),
        (spec.beta, 1 - spec.beta, spec.gamma / (1 - spec.beta), spec.eps),
        {
            "MOMENTUM": spec.kind == "momentum",
            "D": head_dim,
            "DV": value_dim,
            "BD": tiles.head_dim,
            "BV": tiles.value_dim,
            "BLOCKS": blocks,
        },
        tiles,
    )


def _tiles(head_dim: int, value_dim: int) -> Tiles:
    columns = triton.next_power_of_2(head_dim)
    rows = min(triton.next_power_of_2(value_dim), max(1, ELEMENTS // columns))
    return Tiles(
        rows=0,
        keys=0,
        head_dim=columns,
        value_dim=rows,
        value_blocks=-(-value_dim // rows),
        warps=4,
        stages=1,
    )
