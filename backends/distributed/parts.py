"""The local part of linear and momentum attention: what a rank computes of its own positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch

from mtbench.spec import Case

from ..torch_forms import linear
from .places import Place
from .states import carried, pulled

__all__ = ["QKV", "ChunkedPart", "FusedPart", "Part"]

Pair = tuple[torch.Tensor, torch.Tensor]


class QKV(NamedTuple):
    """Of a rank's positions, each contiguous [1, pairs, n, dim]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class Part(ABC):
    """Some (batch, head) pairs of a rank's positions, [1, pairs, n, dim] and contiguous.

    A call is four steps: `state`, `output`, `state_back` and `rest`. Between the first and the second, and
    the third and the fourth, every rank gets the states of all, [ranks, numbers] float32, of which `reaching`
    and `behind` make what the step needs of the others' positions; None where there are none.
    """

    def __init__(self, case: Case, place: Place, size: int) -> None:
        self._case, self._place, self._causal = case, place, case.spec.causal
        self._rule = case.spec.beta, size, case.spec.kind == "momentum"

    def reaching(self, every: torch.Tensor) -> torch.Tensor | None:
        """The state before the part; without a causal mask that at the end of all."""
        return carried(every, self._place.earlier() if self._causal else self._place.to_end(), *self._rule)

    @abstractmethod
    def behind(self, every: torch.Tensor) -> torch.Tensor | None:
        """What comes back from behind the part; without a causal mask from all."""

    @abstractmethod
    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """What the later steps want to know, and the state that the part leaves."""

    @abstractmethod
    def output(self, work: Any, qkv: QKV, first: torch.Tensor | None, o: torch.Tensor) -> Any:
        """Fills `o`, with the state `reaching` the part; what the backward wants."""

    @abstractmethod
    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Fills `dq`; what the last step wants, and what the other ranks' keys have to know."""

    @abstractmethod
    def rest(self, kept: Any, qkv: QKV, do: torch.Tensor, last: torch.Tensor | None, into: Pair) -> None:
        """Fills dk and dv, with what comes from `behind`."""


class FusedPart(Part):
    """By the Triton kernels. What goes back in time are the sums R, Q and y over the queries, which combine
    as S, P and z do."""

    def __init__(self, case: Case, place: Place, *, tf32: bool = False, segments: int | None = None) -> None:
        from ..triton.segments import Segment

        self._segment = Segment(
            case, reach=sum(place.lengths), after=place.after, tf32=tf32, segments=segments
        )
        super().__init__(case, place, self._segment.sum_size)

    def behind(self, every: torch.Tensor) -> torch.Tensor | None:
        """See `Part.behind`."""
        return carried(every, self._place.later(), *self._rule) if self._causal else every.sum(0)

    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """See `Part.state`."""
        own = self._segment.sums(qkv.k, qkv.v)
        return own, self._segment.state(own)

    def output(self, work: Any, qkv: QKV, first: torch.Tensor | None, o: torch.Tensor) -> Any:
        """See `Part.output`."""
        return self._segment.output(*qkv, work, first, o)

    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """See `Part.state_back`."""
        adjoint = self._segment.query_gradients(*qkv, do, kept, dq)
        return (kept, adjoint), self._segment.state_back(adjoint)

    def rest(self, kept: Any, qkv: QKV, do: torch.Tensor, last: torch.Tensor | None, into: Pair) -> None:
        """See `Part.rest`."""
        forward, adjoint = kept
        self._segment.key_value_gradients(*qkv, do, forward, adjoint, last, into)


class ChunkedPart(Part):
    """By the chunked form of PyTorch, differentiated by autograd. What goes back in time are the gradients of
    S, P and z."""

    def __init__(self, case: Case, place: Place) -> None:
        super().__init__(case, place, case.batch * case.heads * case.head_dim * case.value_dim)
        self._backward = case.mode == "forward_backward"
        self._sums = linear.summed(case)
        if self._causal:
            self._walk = linear.walked(case, lambda function: function)
        else:
            self._apply = linear.applied(case)

    def behind(self, every: torch.Tensor) -> torch.Tensor | None:
        """See `Part.behind`."""
        place = self._place
        # Without a causal mask every rank has the same state of all, `after` positions on from here.
        gaps = place.later() if self._causal else dict.fromkeys(range(place.ranks), place.after)
        return pulled(every, gaps, *self._rule)

    def state(self, qkv: QKV) -> tuple[Any, torch.Tensor]:
        """See `Part.state`."""
        with torch.set_grad_enabled(self._backward):
            leaves = tuple(x.detach().requires_grad_(self._backward) for x in qkv[1:])
            flat = self._flat(self._sums(*leaves))
        return (leaves, flat), flat.detach()

    def output(self, work: Any, qkv: QKV, first: torch.Tensor | None, o: torch.Tensor) -> Any:
        """See `Part.output`."""
        with torch.set_grad_enabled(self._backward):
            q, k, v = leaves = tuple(x.detach().requires_grad_(self._backward) for x in qkv)
            if first is None:
                first = self._flat(linear.no_state(k, v))
            before = first.detach().requires_grad_(self._backward)
            state = self._state(before)
            found = self._walk(q, k, v, state) if self._causal else self._apply(q, state)
        o.copy_(found.detach())
        return work, leaves, before, found

    def state_back(self, kept: Any, qkv: QKV, do: torch.Tensor, dq: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """See `Part.state_back`."""
        work, leaves, before, found = kept
        wanted = [*leaves, before] if self._causal else [leaves[0], before]
        grad_q, *own, back = torch.autograd.grad(found, wanted, do)
        dq.copy_(grad_q)
        return (work, own), back

    def rest(self, kept: Any, qkv: QKV, do: torch.Tensor, last: torch.Tensor | None, into: Pair) -> None:
        """See `Part.rest`."""
        (leaves, flat), own = kept
        others = [None, None] if last is None else torch.autograd.grad(flat, leaves, last)
        for filled, *found in zip(into, own or (None, None), others, strict=True):
            there = [gradient for gradient in found if gradient is not None]
            filled.copy_(sum(there[1:], there[0].float()))

    def _flat(self, state: linear.State) -> torch.Tensor:
        _, _, momentum = self._rule
        s, p, z = state
        return torch.cat([x.flatten() for x in ((s, p, z) if momentum else (s, z))])

    def _state(self, flat: torch.Tensor) -> linear.State:
        _, size, momentum = self._rule
        *lead, d, e = self._case.batch, self._case.heads, self._case.head_dim, self._case.value_dim
        s = flat[:size].view(*lead, d, e)
        p = flat[size : 2 * size].view(*lead, d, e) if momentum else torch.zeros_like(s)
        return s, p, flat[-(size // e) :].view(*lead, d)
