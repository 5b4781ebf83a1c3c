"""Softmax attention of some queries over some keys, to be put together with that over others.

A block gives its own output and the logarithm of each row's sum, to base 2 as the Triton kernels have it; the
backward takes the whole row's.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, Protocol

import torch

from mtbench.spec import Case

from ..torch_forms.softmax import BLOCK, online_step

__all__ = ["Blocks", "ChunkedBlocks", "FusedBlocks", "Rows"]


class Rows(NamedTuple):
    """What the backward knows of some queries: their whole rows, over all keys."""

    q: torch.Tensor
    o: torch.Tensor
    do: torch.Tensor
    lse: torch.Tensor


class Blocks(Protocol):
    """q is [batch, heads, n, head_dim], k and v [batch, heads, m, dim], contiguous. With `causal` n = m, and
    a query sees the keys up to its own place."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """o, and the logarithm of the rows' sums [batch, heads, n]."""

    def backward(
        self, rows: Rows, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What these keys add to dq, and these queries to dk and dv."""


class FusedBlocks:
    """By the Triton kernels."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @functools.cache  # noqa: B019  (an instance lives as long as its case)
    def _plan(self, queries: int, keys: int, causal: bool) -> Any:
        from ..triton.plan import make_plan

        spec = self._case.spec if causal else _without_mask(self._case)
        sizes = {"seq_len": queries, "kv_len": keys, "world_size": 1}
        return make_plan(self._case.replace(spec=spec, **sizes), self._case.device)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Blocks.forward`."""
        from ..triton.launch import start
        from ..triton.softmax import attention

        o, (lse,) = attention(self._plan(q.shape[2], k.shape[2], causal), start, q, k, v, keep=True)
        assert lse is not None  # noqa: S101  (it is kept)
        return o, lse

    def backward(
        self, rows: Rows, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Blocks.backward`."""
        from ..triton.launch import start
        from ..triton.softmax_gradients import gradients

        q, o, do, lse = rows
        return gradients(self._plan(q.shape[2], k.shape[2], causal), start, q, k, v, o, do, lse)


class ChunkedBlocks:
    """By PyTorch, a square of positions at a time."""

    def __init__(self, case: Case) -> None:
        self._scale, self._size = case.softmax_scale, BLOCK[case.device]

    def _squares(self, n: int, m: int, causal: bool) -> list[tuple[slice, slice, bool]]:
        """Queries, keys, and whether the mask goes through."""
        size = self._size
        return [
            (slice(i, min(i + size, n)), slice(j, min(j + size, m)), causal and i == j)
            for i in range(0, n, size)
            for j in range(0, min(i + size, m) if causal else m, size)
        ]

    def _hidden(self, rows: int, device: torch.device) -> torch.Tensor:
        n = torch.arange(rows, device=device)
        return n[:, None] < n[None, :]

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Blocks.forward`."""
        lead, n = q.shape[:2], q.shape[2]
        top = q.new_full((*lead, n, 1), -torch.inf, dtype=torch.float32)
        total, acc = torch.zeros_like(top), top.new_zeros((*lead, n, v.shape[3]))
        for rows, keys, masked in self._squares(n, k.shape[2], causal):
            hidden = self._hidden(rows.stop - rows.start, q.device) if masked else None
            before = top[:, :, rows], total[:, :, rows], acc[:, :, rows]
            found = online_step(q[:, :, rows], k[:, :, keys], v[:, :, keys], *before, hidden, self._scale)
            for whole, part in zip((top, total, acc), found, strict=True):
                whole[:, :, rows] = part
        return acc / total, ((top + total.log()) * math.log2(math.e)).squeeze(-1)

    def backward(
        self, rows: Rows, k: torch.Tensor, v: torch.Tensor, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Blocks.backward`."""
        q, o, do, lse = rows
        dq, dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k, v))
        delta = (do.float() * o.float()).sum(-1, keepdim=True)
        dtype = q.dtype
        for own, keys, masked in self._squares(q.shape[2], k.shape[2], causal):
            q_i, do_i, k_j, v_j = q[:, :, own], do[:, :, own], k[:, :, keys], v[:, :, keys]
            scores = (q_i @ k_j.mT).float() * (self._scale * math.log2(math.e))
            p = torch.exp2(scores - lse[:, :, own, None])
            if masked:
                p = p.masked_fill(self._hidden(own.stop - own.start, q.device), 0.0)
            ds = (p * ((do_i @ v_j.mT).float() - delta[:, :, own]) * self._scale).to(dtype)
            dq[:, :, own] += (ds @ k_j).float()
            dk[:, :, keys] += (ds.mT @ q_i).float()
            dv[:, :, keys] += (p.to(dtype).mT @ do_i).float()
        return dq, dk, dv


def _without_mask(case: Case) -> Any:
    import dataclasses

    return dataclasses.replace(case.spec, causal=False)
