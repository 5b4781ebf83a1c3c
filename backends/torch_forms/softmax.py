"""Softmax attention (eq 1): whole, a block at a time, and through PyTorch's own kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from mtbench.spec import Case

from .weights import Keys

Function = Callable[..., torch.Tensor]
"""``(q, k, v) -> o``, and of a case with lengths ``(q, k, v, lengths) -> o``."""
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

BLOCK = {"cpu": 256, "cuda": 1024}
"""Queries and keys of a block: its scores stay in a CPU's cache, and fill a GPU."""


def parallel(case: Case, wrap: Wrap) -> Function:
    """The scores as one [batch, heads, seq_len, kv_len] array: O(N^2) memory."""
    scale, hidden_by = case.softmax_scale, _Hidden(case)

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        hidden = hidden_by(lengths)
        scores = (q @ k.mT).float() * scale  # [B, H, N, M]
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        return scores.softmax(-1).to(v.dtype) @ v

    return wrap(run)


class _Hidden:
    """True where a query must not see a key, broadcast to [batch, 1, seq_len, kv_len]; None where each sees
    all."""

    def __init__(self, case: Case) -> None:
        self._keys = Keys(case)
        self._above: torch.Tensor | None = None
        if case.spec.causal:
            n = torch.arange(case.seq_len, device=case.device)
            self._above = (n[:, None] < n[None, :])[None, None]

    def __call__(self, lengths: torch.Tensor | None) -> torch.Tensor | None:
        real = self._keys.real(lengths)
        if real is None:
            return self._above
        padding = ~real.mT  # [B, 1, 1, M]
        return padding if self._above is None else self._above | padding


def chunked(case: Case, wrap: Wrap) -> Function:
    """Online over key blocks: O(N block) memory, whatever the length, also when differentiated: the blocks of
    one query block are computed again in the backward rather than kept."""
    size, causal, scale, key = BLOCK[case.device], case.spec.causal, case.softmax_scale, Keys(case)
    n = torch.arange(size, device=case.device)
    above_diagonal = n[:, None] < n[None, :]
    step = wrap(_online_step)

    def one_query_block(
        start: int, padding: torch.Tensor | None, qb: torch.Tensor, *keys_and_values: torch.Tensor
    ) -> torch.Tensor:
        count = len(keys_and_values) // 2
        ks, vs = keys_and_values[:count], keys_and_values[count:]
        rows = qb.shape[2]
        top = qb.new_full((*qb.shape[:3], 1), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(top)
        acc = qb.new_zeros((*qb.shape[:3], vs[0].shape[3]), dtype=torch.float32)
        for at, kb, vb in zip(range(0, size * len(ks), size), ks, vs, strict=True):
            hidden = above_diagonal[:rows, : kb.shape[2]] if causal and at == start else None
            if padding is not None:
                pad = padding[..., at : at + size]
                hidden = pad if hidden is None else hidden | pad
            top, total, acc = step(qb, kb, vb, top, total, acc, hidden, scale)
        return (acc / total).to(vs[0].dtype)

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        real = key.real(lengths)
        padding = None if real is None else ~real.mT  # [B, 1, 1, M]
        # split once: a slice taken in the loop would send back a gradient as long as the whole sequence.
        ks, vs = k.split(size, 2), v.split(size, 2)
        blocks = []
        for index, qb in enumerate(q.split(size, 2)):
            seen = index + 1 if causal else len(ks)
            block = functools.partial(one_query_block, index * size, padding)
            blocks.append(_Recomputed.apply(block, qb, *ks[:seen], *vs[:seen]))  # type: ignore[no-untyped-call]
        return torch.cat(blocks, 2)

    return run


class _Recomputed(torch.autograd.Function):
    """A function of tensors that keeps its arguments alone, and is run again, by autograd, in the backward.

    torch.utils.checkpoint leaves reference cycles that hold tensors until Python's collector comes by: a
    thousand small blocks then need the memory that they are cut into blocks to save.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            output = ctx.function(*inputs)
        return None, *torch.autograd.grad(output, inputs, gradients)


def _online_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    top: torch.Tensor,
    total: torch.Tensor,
    acc: torch.Tensor,
    hidden: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take one key block into the running maximum, sum and weighted values, all float32."""
    scores = (q @ k.mT).float() * scale  # [B, H, BQ, BK]
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    # The first key of a sequence is never hidden, so from the first block on the maximum is finite.
    # It only guards the exponential, whatever its value: no gradient goes through it, and none is kept for.
    new_top = torch.maximum(top, scores.detach().amax(-1, keepdim=True))
    p = torch.exp(scores - new_top)
    shrink = torch.exp(top - new_top)
    total = total * shrink + p.sum(-1, keepdim=True)
    acc = acc * shrink + (p.to(v.dtype) @ v).float()
    return new_top, total, acc


def sdpa(case: Case, wrap: Wrap) -> Function:
    """torch.nn.functional.scaled_dot_product_attention, which chooses among its kernels."""
    hidden_by = None if case.lengths is None else _Hidden(case)
    causal, scale = case.spec.causal and hidden_by is None, case.softmax_scale

    def run(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        hidden = None if hidden_by is None else hidden_by(lengths)
        mask = None if hidden is None else ~hidden
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)

    return wrap(run)


def flex(case: Case, wrap: Wrap) -> Function:
    """FlexAttention, whose kernel torch.compile generates for this mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    scale = case.softmax_scale
    mask = None
    if case.spec.causal:
        mask = create_block_mask(
            lambda b, h, i, j: i >= j,
            B=None,
            H=None,
            Q_LEN=case.seq_len,
            KV_LEN=case.kv_len,
            device=case.device,
        )

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        o = flex_attention(q, k, v, block_mask=mask, scale=scale)
        assert isinstance(o, torch.Tensor)  # noqa: S101  (it is a tuple only when asked for its log-sum-exp)
        return o

    return wrap(run)
