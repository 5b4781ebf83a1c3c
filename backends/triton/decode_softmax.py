"""Decoding with softmax attention: one token for a batch of sequences, by the keys and values of all before.

The cache has room for a number of tokens that is known from the start, and lies where it is. How many it
holds is a number on the device, so that one CUDA graph is every token's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from mtbench.errors import BadInput
from mtbench.spec import AttentionSpec

from .launch import Launch, Prepared, start
from .maps import row_max, row_sum
from .tiles import MAX_DIM, Tiles

__all__ = ["Cache", "empty_cache", "step"]

ELEMENTS = 2048
"""Of a block of keys, that a program has in its registers at a time."""
LOG2E = 1.4426950408889634


class Cache(NamedTuple):
    """Keys and values of the tokens so far, in the dtype they came in."""

    keys: torch.Tensor
    """[batch, heads, room, head_dim]."""
    values: torch.Tensor
    """[batch, heads, room, value_dim]."""
    taken: torch.Tensor
    """[1] int32, how many tokens there are."""


@triton.jit(do_not_specialize=["room"])
def read(
    q, k, v, o, keys, values, taken, room, factor,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Eq 1 for one token by online softmax, its own key and value put into the cache.

    Tiling: one program a (batch, head) over blocks of BN keys; the output [BV] stays in float32 registers.
    Traffic: n (head_dim + value_dim) numbers of the cache once in, and one token's once out; q and o once.

    `factor` is scale * log2(e).
    """
    pair = tl.program_id(0).to(tl.int64)
    n = tl.load(taken)
    d, e = tl.arange(0, BD), tl.arange(0, BV)
    in_head, in_value = d < D, e < DV
    query = tl.load(q + pair * D + d, mask=in_head, other=0.0).to(tl.float32) * factor  # [BD]
    key = tl.load(k + pair * D + d, mask=in_head, other=0.0)
    value = tl.load(v + pair * DV + e, mask=in_value, other=0.0)
    keys += pair * room * D
    values += pair * room * DV
    tl.store(keys + n * D + d, key, mask=in_head)
    tl.store(values + n * DV + e, value, mask=in_value)
    # Its own key first, which no program has to read back.
    best = row_sum(query * key.to(tl.float32), 0)
    total = best * 0.0 + 1.0
    acc = value.to(tl.float32)  # [BV]
    for j in range(0, n, BN):
        t = j + tl.arange(0, BN)
        real = t < n
        block = tl.load(
            keys + t[:, None] * D + d[None, :], mask=real[:, None] & in_head[None, :], other=0.0
        )  # [BN, BD]
        scores = row_sum(block.to(tl.float32) * query[None, :], 1)  # [BN]
        scores = tl.where(real, scores, float("-inf"))
        higher = tl.maximum(best, row_max(scores, 0))
        share = tl.exp2(scores - higher)
        shrink = tl.exp2(best - higher)
        block = tl.load(
            values + t[:, None] * DV + e[None, :], mask=real[:, None] & in_value[None, :], other=0.0
        )  # [BN, BV]
        acc = acc * shrink + row_sum(block.to(tl.float32) * share[:, None], 0)
        total = total * shrink + row_sum(share, 0)
        best = higher
    tl.store(o + pair * DV + e, (acc / total).to(o.dtype.element_ty), mask=in_value)


def empty_cache(
    *,
    batch: int,
    heads: int,
    room: int,
    head_dim: int,
    value_dim: int,
    dtype: torch.dtype,
    device: str,
) -> Cache:
    """Room for so many tokens of each sequence, and none there.

    Raises:
        BadInput: a dim past the largest.
    """
    if max(head_dim, value_dim) > MAX_DIM:
        raise BadInput(f"head_dim and value_dim are at most {MAX_DIM} here, not {head_dim} and {value_dim}")
    return Cache(
        keys=torch.empty((batch, heads, room, head_dim), dtype=dtype, device=device),
        values=torch.empty((batch, heads, room, value_dim), dtype=dtype, device=device),
        taken=torch.zeros(1, dtype=torch.int32, device=device),
    )


def step(
    spec: AttentionSpec,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: Cache,
    *,
    launch: Launch = start,
) -> torch.Tensor:
    """The next token's output [batch, heads, value_dim], in v's dtype; `cache` has the token then.

    More tokens than it has room for are not asked after: that would be read from the device.

    Args:
        spec: softmax attention; its scale.
        q: the token's query, [batch, heads, head_dim], contiguous, as all are.
        k: its key, [batch, heads, head_dim].
        v: its value, [batch, heads, value_dim].
        cache: of `empty_cache`, or what an earlier step left.
        launch: how kernels are started.

    Raises:
        BadInput: another attention, or a tensor that is not contiguous, or not of the cache's shape or dtype.
    """
    batch, heads, room, head_dim = cache.keys.shape
    value_dim = cache.values.shape[3]
    if spec.kind != "softmax":
        raise BadInput(f"a cache of keys and values is softmax attention's, and not one of {spec.kind}")
    for name, tensor, dim in (("q", q, head_dim), ("k", k, head_dim), ("v", v, value_dim)):
        if tensor.shape != (batch, heads, dim) or not tensor.is_contiguous():
            found = f"{list(tensor.shape)}{'' if tensor.is_contiguous() else ', not contiguous'}"
            raise BadInput(f"{name} must be [{batch}, {heads}, {dim}] and contiguous, and is {found}")
    if k.dtype != cache.keys.dtype or v.dtype != cache.values.dtype:
        raise BadInput(f"the cache is of {cache.keys.dtype}, and k and v are {k.dtype} and {v.dtype}")
    o = torch.empty((batch, heads, value_dim), dtype=v.dtype, device=v.device)
    scale = spec.scale if spec.scale is not None else head_dim**-0.5
    launch(_prepared(scale, batch * heads, room, head_dim, value_dim), q, k, v, o, *cache)
    cache.taken.add_(1)
    return o


@functools.lru_cache(maxsize=256)
def _prepared(scale: float, pairs: int, room: int, head_dim: int, value_dim: int) -> Prepared:
    tiles = _tiles(head_dim, value_dim)
    return Prepared(
        read,
        (pairs,),
        (room, scale * LOG2E),
        {"D": head_dim, "DV": value_dim, "BD": tiles.head_dim, "BV": tiles.value_dim, "BN": tiles.keys},
        tiles,
    )


def _tiles(head_dim: int, value_dim: int) -> Tiles:
    columns, values = triton.next_power_of_2(head_dim), triton.next_power_of_2(value_dim)
    keys = max(16, ELEMENTS // max(columns, values))
    return Tiles(rows=0, keys=keys, head_dim=columns, value_dim=values, value_blocks=1, warps=4, stages=1)
