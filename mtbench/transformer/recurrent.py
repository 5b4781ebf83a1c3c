"""Attention one token at a time, by what the tokens before it left behind.

Linear and momentum attention leave a state of head_dim x value_dim numbers, whatever their number; softmax
attention needs all keys and values. q, k and v of a token are [batch, heads, dim].
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from mtbench.spec import AttentionSpec
from mtbench.transformer.plain import key_weight, phi, real_keys

__all__ = ["Cached", "Memory", "Past", "Summed", "past"]


ROOM = 16
"""Tokens that a cache of keys and values has room for at first."""


class Past(ABC):
    """What the tokens so far left behind, of one layer."""

    @abstractmethod
    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Take a token in, and return its output, [batch, heads, value_dim]."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers it holds."""


class Summed(Past):
    """Eq 8 and 12 as they stand: S, P (with momentum) and z."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec
        self._sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Past.step`."""
        q, k, v = (_wide(x) for x in (q, k, v))
        spec, fq, fk = self.spec, phi(q), phi(k)
        added = fk[..., :, None] * v[..., None, :]  # [batch, heads, head_dim, value_dim]
        if self._sums is None:
            zero = torch.zeros_like(added)
            self._sums = zero, zero, torch.zeros_like(fk)
        s, p, z = self._sums
        if spec.kind == "momentum":
            p = spec.beta * p + added
            s = s + spec.gamma * p
        else:
            s = s + added
        z = z + fk
        self._sums = s, p, z
        return _read(fq, s, z, spec.eps)

    @property
    def numbers(self) -> int:
        """See `Past.numbers`."""
        kept = self._sums or ()
        return sum(x.numel() for x in (kept if self.spec.kind == "momentum" else kept[::2]))


class Cached(Past):
    """Softmax attention over every key and value so far: memory grows with each token."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec
        self._count = 0
        self._held: tuple[torch.Tensor, ...] = ()
        """Keys and values, [batch, heads, room, dim], where the first `_count` are filled."""

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Past.step`."""
        k, v = _wide(k), _wide(v)
        if not self._held:
            self._held = tuple(x.new_empty((*x.shape[:2], ROOM, x.shape[2])) for x in (k, v))
        elif self._count == self._held[0].shape[2]:  # twice the room, so that each is copied about once
            self._held = tuple(torch.cat((x, torch.empty_like(x)), 2) for x in self._held)
        for held, new in zip(self._held, (k, v), strict=True):
            held[:, :, self._count] = new
        self._count += 1
        keys, values = (x[:, :, : self._count] for x in self._held)
        return _softmax(self.spec, _wide(q), keys, values, None)

    @property
    def numbers(self) -> int:
        """See `Past.numbers`; room that is not filled yet is not counted."""
        return sum(x[:, :, : self._count].numel() for x in self._held)


def past(spec: AttentionSpec) -> Past:
    """Nothing yet, for that attention."""
    return Cached(spec) if spec.kind == "softmax" else Summed(spec)


class Memory:
    """Another sequence, whole, for a token's query to read: attention that is not causal (eq 1, 8, 14)."""

    def __init__(
        self, spec: AttentionSpec, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> None:
        """Of k [batch, heads, kv_len, head_dim] and v of as many positions; of linear and momentum attention
        only their sums are kept."""
        self.spec = spec
        k, v = _wide(k), _wide(v)
        real = real_keys(lengths, k.shape[2])
        if spec.kind == "softmax":
            self._kept = k, v
            self._hidden = None if real is None else ~real[:, None, :]
            return
        fk = phi(k) if real is None else phi(k) * real[:, None, :, None]
        positions = torch.arange(k.shape[2], device=k.device)
        last = torch.tensor([k.shape[2]], device=k.device) if lengths is None else lengths
        weight = key_weight(spec, last[:, None] - 1 - positions).to(k.dtype)[:, None, :, None]
        self._kept = (fk * weight).mT @ v, fk.sum(2)

    def read(self, q: torch.Tensor) -> torch.Tensor:
        """[batch, heads, value_dim] of a token's q."""
        if self.spec.kind == "softmax":
            return _softmax(self.spec, _wide(q), *self._kept, self._hidden)
        return _read(phi(_wide(q)), *self._kept, self.spec.eps)


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at the least: a state is a sum over everything so far."""
    return x if x.dtype == torch.float64 else x.float()


def _read(fq: torch.Tensor, s: torch.Tensor, z: torch.Tensor, eps: float) -> torch.Tensor:
    o = (fq[..., None, :] @ s)[..., 0, :]
    return o / ((fq * z).sum(-1, keepdim=True) + eps)


def _softmax(
    spec: AttentionSpec, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor | None
) -> torch.Tensor:
    scale = spec.scale if spec.scale is not None else q.shape[-1] ** -0.5
    scores = (k @ q[..., None])[..., 0] * scale  # [batch, heads, kv_len]
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return (scores.softmax(-1)[..., None, :] @ v)[..., 0, :]
