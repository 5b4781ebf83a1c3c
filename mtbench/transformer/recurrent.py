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


class Past(ABC):
    """What the tokens so far left behind, of one layer."""

    @abstractmethod
    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Take a token in, and return its output, [batch, heads, value_dim]."""

    @abstractmethod
    def clear(self) -> None:
        """Before the first token again."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers the tokens so far left in it."""

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """The memory of its tensors."""


class Summed(Past):
    """Eq 8 and 12 as they stand: S, P (with momentum) and z. Half precision is added up in float32."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec
        self._s: torch.Tensor | None = None
        self._p: torch.Tensor | None = None
        self._z: torch.Tensor | None = None

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Past.step`."""
        spec, fq, fk, values = self.spec, phi(_wide(q)), phi(_wide(k)), _wide(v)
        added = fk[..., :, None] * values[..., None, :]  # [batch, heads, head_dim, value_dim]
        if self._s is None or self._z is None:
            self._s, self._z = torch.zeros_like(added), torch.zeros_like(fk)
            self._p = torch.zeros_like(added) if spec.kind == "momentum" else None
        if self._p is None:
            self._s += added
        else:
            self._p.mul_(spec.beta).add_(added)
            self._s.add_(self._p, alpha=spec.gamma)
        self._z += fk
        return _read(fq, self._s, self._z, spec.eps).to(v.dtype)

    def clear(self) -> None:
        """See `Past.clear`."""
        for tensor in self._tensors:
            tensor.zero_()

    @property
    def numbers(self) -> int:
        """See `Past.numbers`."""
        return sum(x.numel() for x in self._tensors)

    @property
    def held_bytes(self) -> int:
        """See `Past.held_bytes`."""
        return sum(x.nbytes for x in self._tensors)

    @property
    def _tensors(self) -> list[torch.Tensor]:
        return [x for x in (self._s, self._p, self._z) if x is not None]


class Cached(Past):
    """Softmax attention over every key and value so far: memory grows with each token, twofold where it is
    full."""

    FIRST = 16

    def __init__(self, spec: AttentionSpec) -> None:
        self.spec = spec
        self._count = 0
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Past.step`."""
        self._keys, self._values = self._with(self._keys, k), self._with(self._values, v)
        self._count += 1
        keys, values = (x[:, :, : self._count] for x in (self._keys, self._values))
        return _softmax(self.spec, q, keys, values, None)

    def _with(self, kept: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        """`kept`, or one of twice as many places, with the next of them taken."""
        if kept is None:
            kept = new.new_empty((*new.shape[:2], self.FIRST, new.shape[2]))
        elif self._count == kept.shape[2]:
            kept = torch.cat((kept, torch.empty_like(kept)), 2)
        kept[:, :, self._count] = new
        return kept

    def clear(self) -> None:
        """See `Past.clear`."""
        self._count = 0

    @property
    def numbers(self) -> int:
        """See `Past.numbers`."""
        return sum(x[:, :, : self._count].numel() for x in self._tensors)

    @property
    def held_bytes(self) -> int:
        """See `Past.held_bytes`."""
        return sum(x.nbytes for x in self._tensors)

    @property
    def _tensors(self) -> list[torch.Tensor]:
        return [x for x in (self._keys, self._values) if x is not None]


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
        real = real_keys(lengths, k.shape[2])
        if spec.kind == "softmax":
            self._kept = k, v
            self._hidden = None if real is None else ~real[:, None, :]
            return
        k, v = _wide(k), _wide(v)
        fk = phi(k) if real is None else phi(k) * real[:, None, :, None]
        positions = torch.arange(k.shape[2], device=k.device)
        last = torch.tensor([k.shape[2]], device=k.device) if lengths is None else lengths
        weight = key_weight(spec, last[:, None] - 1 - positions).to(k.dtype)[:, None, :, None]
        self._kept = (fk * weight).mT @ v, fk.sum(2)

    def read(self, q: torch.Tensor) -> torch.Tensor:
        """[batch, heads, value_dim] of a token's q."""
        if self.spec.kind == "softmax":
            return _softmax(self.spec, q, *self._kept, self._hidden)
        return _read(phi(_wide(q)), *self._kept, self.spec.eps).to(q.dtype)


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


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
