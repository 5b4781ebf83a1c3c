"""The local part of linear and momentum attention: what a rank computes of its own positions."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from mtbench.spec import Case

from ..torch_forms import linear
from .places import Place
from .states import added, carried, pulled

__all__ = ["QKV", "ChunkedPart", "FusedPart", "Part"]


class QKV(NamedTuple):
    """Of a rank's positions, each contiguous [1, pairs, n, dim]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class Part(Protocol):
    """Some (batch, head) pairs of a rank's positions, [1, pairs, n, dim] and contiguous.

    A call is four steps, and between the first and the second, and the third and the fourth, every rank gets
    the states of all, [ranks, numbers] float32.
    """

    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """What the later steps want to know, and the state that the part leaves."""

    def output(
        self,
        work: Any,
        qkv: QKV,
        every: torch.Tensor,
        o: torch.Tensor,
    ) -> Any:
        """Fills `o`; what the backward wants."""

    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Fills `dq`; what the last step wants, and what the other ranks' keys have to know."""

    def rest(
        self,
        kept: Any,
        qkv: QKV,
        do: torch.Tensor,
        every: torch.Tensor,
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """Fills dk and dv."""


class FusedPart:
    """By the Triton kernels. What goes back in time are the sums R, Q and y over the queries, which combine
    as S, P and z do."""

    def __init__(self, case: Case, place: Place, *, tf32: bool = False, segments: int | None = None) -> None:
        from ..triton.segments import Segment

        self._spec, self._place = case.spec, place
        self._segment = Segment(
            case, reach=sum(place.lengths), after=place.after, tf32=tf32, segments=segments
        )
        self._size = self._segment.sum_size

    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """See `Part.state`."""
        own = self._segment.sums(qkv.k, qkv.v)
        return own, self._segment.state(own)

    def output(
        self,
        work: Any,
        qkv: QKV,
        every: torch.Tensor,
        o: torch.Tensor,
    ) -> Any:
        """See `Part.output`."""
        return self._segment.output(*qkv, work, self._carried(every, self._reaching()), o)

    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """See `Part.state_back`."""
        adjoint = self._segment.query_gradients(*qkv, do, kept, dq)
        return (kept, adjoint), self._segment.state_back(adjoint)

    def rest(
        self,
        kept: Any,
        qkv: QKV,
        do: torch.Tensor,
        every: torch.Tensor,
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """See `Part.rest`."""
        last = self._carried(every, self._place.later()) if self._spec.causal else added(every)
        forward, adjoint = kept
        self._segment.key_value_gradients(*qkv, do, forward, adjoint, last, into)

    def _reaching(self) -> dict[int, int]:
        return self._place.earlier() if self._spec.causal else self._place.to_end()

    def _carried(self, every: torch.Tensor, gaps: dict[int, int]) -> torch.Tensor | None:
        return carried(every, gaps, self._spec.beta, self._size, self._spec.kind == "momentum")


class ChunkedPart:
    """By the chunked form of PyTorch, differentiated by autograd. What goes back in time are the gradients of
    S, P and z."""

    def __init__(self, case: Case, place: Place) -> None:
        self._spec, self._place = case.spec, place
        self._backward = case.mode == "forward_backward"
        self._shape = (case.batch, case.heads, case.head_dim, case.value_dim)
        self._sums = linear.summed(case)
        if case.spec.causal:
            self._walk = linear.walked(case, lambda function: function)
        else:
            self._apply = linear.applied(case)

    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """See `Part.state`."""
        with torch.set_grad_enabled(self._backward):
            leaves = tuple(x.detach().requires_grad_(self._backward) for x in qkv[1:])
            flat = self._flat(self._sums(*leaves))
        return (leaves, flat), flat.detach()

    def output(
        self,
        work: Any,
        qkv: QKV,
        every: torch.Tensor,
        o: torch.Tensor,
    ) -> Any:
        """See `Part.output`."""
        causal = self._spec.causal
        reaching = self._place.earlier() if causal else self._place.to_end()
        first = carried(every, reaching, self._spec.beta, self._size, self._momentum)
        with torch.set_grad_enabled(self._backward):
            q, k, v = leaves = tuple(x.detach().requires_grad_(self._backward) for x in qkv)
            if first is None:
                first = self._flat(linear.no_state(k, v))
            before = first.detach().requires_grad_(self._backward)
            state = self._state(before)
            found = self._walk(q, k, v, state) if causal else self._apply(q, state)
        o.copy_(found.detach())
        return work, leaves, before, found

    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """See `Part.state_back`."""
        work, leaves, before, found = kept
        wanted = [*leaves, before] if self._spec.causal else [leaves[0], before]
        grad_q, *own, back = torch.autograd.grad(found, wanted, do)
        dq.copy_(grad_q)
        return (work, own), back

    def rest(
        self,
        kept: Any,
        qkv: QKV,
        do: torch.Tensor,
        every: torch.Tensor,
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """See `Part.rest`."""
        (leaves, flat), own = kept
        place = self._place
        # Without a causal mask every rank has the same state of all, `after` positions on from here.
        gaps = place.later() if self._spec.causal else dict.fromkeys(range(place.ranks), place.after)
        back = pulled(every, gaps, self._spec.beta, self._size, self._momentum)
        others = [None, None] if back is None else torch.autograd.grad(flat, leaves, back)
        for filled, *found in zip(into, own or (None, None), others, strict=True):
            there = [gradient for gradient in found if gradient is not None]
            filled.copy_(sum(there[1:], there[0].float()))

    @property
    def _momentum(self) -> bool:
        return self._spec.kind == "momentum"

    @property
    def _size(self) -> int:
        batch, heads, d, e = self._shape
        return batch * heads * d * e

    def _flat(self, state: linear.State) -> torch.Tensor:
        s, p, z = state
        return torch.cat([x.flatten() for x in ((s, p, z) if self._momentum else (s, z))])

    def _state(self, flat: torch.Tensor) -> linear.State:
        batch, heads, d, e = self._shape
        size = self._size
        s = flat[:size].view(batch, heads, d, e)
        p = flat[size : 2 * size].view(batch, heads, d, e) if self._momentum else torch.zeros_like(s)
        return s, p, flat[-batch * heads * d :].view(batch, heads, d)
