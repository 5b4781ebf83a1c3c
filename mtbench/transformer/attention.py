"""The model's attention: projections around any attention of the spec, computed by any backend of torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mtbench.backend import Applicable
from mtbench.errors import BadInput
from mtbench.spec import AttentionSpec, Case
from mtbench.transformer.backends import model_backend, model_form
from mtbench.transformer.config import ModelConfig
from mtbench.transformer.linear import Linear, multiplied
from mtbench.transformer.plain import denominator, key_weight

__all__ = ["Attend", "BackendAttention", "MultiHeadAttention", "by_head"]

Attend = Callable[..., torch.Tensor]
"""``(spec, q, k, v, lengths) -> o``: q is [batch, seq_len, heads, head_dim], k and v have kv_len positions,
and o is [batch, seq_len, heads, value_dim]; lengths are each sequence's real keys, [batch] integers on the
device, or None. `plain_attention` is one."""

Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Q, k and v."""

MOST_KERNELS = 256
"""Shapes whose kernels are kept: a decoder that grows by a token has many."""


class BackendAttention:
    """Attention by a backend that is found by its name, built once a shape."""

    def __init__(self, backend: str, form: str | None = None) -> None:
        """As `mtbench.load_backend` finds it; `form` is one of its own, by default its first that does the
        case.

        Raises:
            BadInput: an unknown backend, or one whose arrays are not torch's.
        """
        self.backend, self.form = model_backend(backend), form
        self._kernels: OrderedDict[tuple[Any, ...], Applicable] = OrderedDict()

    def __call__(
        self,
        spec: AttentionSpec,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Attend`. Lengths are read on the device, at every call: a kernel does for all of them.

        Raises:
            BadInput: the backend does not do this case; the message has its declared reason.
        """
        backward = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        key = (spec, q.shape, k.shape, v.shape, q.dtype, q.device.type, lengths is not None, backward)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._build(*key)
            if len(self._kernels) > MOST_KERNELS:
                self._kernels.popitem(last=False)
        order = tuple("bnhd".index(axis) for axis in kernel.layout)
        back = tuple(kernel.layout.index(axis) for axis in "bnhd")
        # The backend's own arithmetic, whatever surrounds it.
        with torch.autocast(q.device.type, enabled=False):
            given = () if lengths is None else (lengths,)
            o: torch.Tensor = kernel.apply(q.permute(order), k.permute(order), v.permute(order), *given)
        return o.permute(back)

    def _build(
        self,
        spec: AttentionSpec,
        q: Sequence[int],
        k: Sequence[int],
        v: Sequence[int],
        dtype: torch.dtype,
        device: str,
        padded: bool,
        backward: bool,
    ) -> Applicable:
        """The kernel of tensors of these shapes, [batch, positions, heads, dim]."""
        case = Case(
            spec=spec,
            batch=q[0],
            heads=q[2],
            seq_len=q[1],
            kv_len=k[1],
            lengths=(k[1],) * q[0] if padded else None,
            head_dim=q[3],
            value_dim=v[3],
            kv_heads=k[2],
            dtype=str(dtype).removeprefix("torch."),  # type: ignore[arg-type]
            device=device,  # type: ignore[arg-type]
            mode="forward_backward" if backward else "forward",
        )
        kernel = self.backend.build(case, model_form(self.backend, case, self.form))
        if not isinstance(kernel, Applicable):
            raise BadInput(
                f"backend {self.backend.name!r}: its kernels have no method apply, so no model can call them"
            )
        return kernel


def by_head(x: torch.Tensor) -> torch.Tensor:
    """The same [batch, positions, heads, dim], lying head by head as most kernels want it, and would copy it.
    A token's [batch, heads, dim] does so already."""
    return x.transpose(-3, -2).contiguous().transpose(-3, -2) if x.ndim > 3 else x.contiguous()


class MultiHeadAttention(nn.Module):
    """Queries of one sequence on its own keys and values (`forward`), or on another's (`asked`, `mixed`).

    ``momentum-released`` weights the values by eq 14's ``gamma (1 - beta^(N-j+1)) / (1 - beta)`` and is
    linear attention of those. The bare attentions are the others times their denominators (`denominator`).
    """

    def __init__(self, config: ModelConfig, attend: Attend, *, causal: bool) -> None:
        super().__init__()
        size = config.size
        width = size.heads * size.head_dim
        self.query = Linear(size.d_model, width)
        self.key = Linear(size.d_model, width)
        self.value = Linear(size.d_model, width)
        self.out = Linear(width, size.d_model)
        self.heads, self.causal = size.heads, causal
        self.spec = config.spec(causal=causal)
        """What is computed between the projections, over positions side by side."""
        self.momentum_spec = config.spec(causal=False)
        self.weighted, self.bare = config.weighted(causal=causal), config.bare
        self._attend = attend
        self._weights: dict[Any, torch.Tensor] = {}

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, seq_len, d_model] of x of that shape on itself; lengths [batch] are the real ones of each
        entry, None is all of them."""
        return self.out.merged(self.mixed(*self.together(x), lengths))

    def projected(self, x: torch.Tensor) -> Projections:
        """Q, k and v of x, by a product each: [..., heads, dim]."""
        q, k, v = (multiplied(x, part, heads=self.heads)[0] for part in (self.query, self.key, self.value))
        return q, k, v

    def together(self, x: torch.Tensor) -> Projections:
        """`projected` by one product, where that is faster (`multiplied`)."""
        q, k, v = multiplied(x, self.query, self.key, self.value, heads=self.heads)
        if torch.compiler.is_compiling():
            # Views of one tensor would have their gradients put together outside of what is compiled.
            return by_head(q), by_head(k), by_head(v)
        return q, k, v

    def asked(self, x: torch.Tensor) -> torch.Tensor:
        """Q of x alone, where k and v are another sequence's."""
        (found,) = multiplied(x, self.query, heads=self.heads)
        return by_head(found) if torch.compiler.is_compiling() else found

    def mixed(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The attention itself, between the projections: all are [batch, positions, heads, dim]."""
        if self.weighted:
            v = v * self.position_weight(v, lengths)
        # Padding lies behind all that is real, where a causal query does not look.
        o = self._attend(self.spec, q, k, v, None if self.causal else lengths)
        if self.bare:
            o = (o * denominator(self.spec, q, k, lengths)).to(o.dtype)
        return o

    def position_weight(self, v: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Eq 14's weight of each position, [batch or 1, positions, 1, 1]; what it says of padding means
        nothing. By distance from the end it is kept: a captured step copies nothing from the host."""
        n, key = v.shape[1], (v.shape[1], v.dtype, v.device)
        if key not in self._weights:
            if len(self._weights) >= MOST_KERNELS:
                self._weights.clear()
            weight = key_weight(self.momentum_spec, torch.arange(n))
            self._weights[key] = weight.to(device=v.device, dtype=v.dtype)
        by_distance = self._weights[key]
        if lengths is None:
            return by_distance.flip(0)[None, :, None, None]
        from_end = (lengths[:, None] - 1 - torch.arange(n, device=v.device)).clamp(min=0)
        return by_distance[from_end][:, :, None, None]
