"""Linear and momentum attention over ranks: a state from each, in one collective, whatever the length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch

from mtbench.spec import Case

from .exchange import Exchange, Pending
from .parts import QKV, ChunkedPart, FusedPart, Part
from .places import Place, evenly

__all__ = ["GROUPS", "Scan"]

GROUPS = {"cpu": 1, "cuda": 2}
"""Groups of (batch, head) pairs, each with a collective of its own: while one group's states are under way
the next group's are summed, and while the last one's are the first one's output is made. No work is done
twice. On a CPU a second group is as many more operators to start, and its gather has no core of its own."""


class Scan:
    """One rank's side of a case.

    On a card a rank adds up its segments' states anyway before it computes its output; what the split adds is
    the state of the last of them, and the sum of all. So the state comes first, which is a third of the
    traffic, and nothing has to be corrected when the others' come.

    Args:
        case: the whole sequence's.
        place: the rank's part of it.
        exchange: its end of the line.
        form: ``fused`` (Triton kernels) or ``chunked`` (PyTorch).
        groups: other than in `GROUPS`.
        segments: see `Segment`, for tests.
    """

    def __init__(
        self,
        case: Case,
        place: Place,
        exchange: Exchange,
        form: str,
        *,
        groups: int | None = None,
        segments: int | None = None,
    ) -> None:
        pairs, groups = case.batch * case.heads, groups or GROUPS[case.device]
        cut = evenly(pairs, min(groups, pairs))
        local = {"batch": 1, "seq_len": place.lengths[place.rank], "world_size": 1}
        self._exchange = exchange
        self._cut = list(pairwise([0, *accumulate(cut)]))
        parts: dict[int, Part] = {}
        for count in set(cut):
            own = case.replace(**local, heads=count)
            parts[count] = (
                FusedPart(own, place, segments=segments) if form == "fused" else ChunkedPart(own, place)
            )
        self._parts = [parts[count] for count in cut]
        self.groups = len(cut)
        """Of the pairs there are."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The output of the rank's positions, contiguous [batch, heads, n, dim] as q, k and v, and what
        `backward` wants."""
        o = v.new_empty((*q.shape[:3], v.shape[3]))
        grouped = [QKV(*x) for x in zip(*map(self._grouped, (q, k, v)), strict=True)]
        started = [self._started(*part.state(x)) for part, x in zip(self._parts, grouped, strict=True)]
        kept = [
            part.output(work, qkv, part.reaching(pending.wait()), out)
            for part, qkv, (work, pending), out in zip(
                self._parts, grouped, started, self._grouped(o), strict=True
            )
        ]
        return o, (grouped, kept)

    def backward(self, kept: Any, do: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """dq, dk and dv, shaped as q, k and v."""
        grouped, works = kept
        grads = [x.new_empty((*do.shape[:3], x.shape[3])) for x in grouped[0]]
        dq, dk, dv = map(self._grouped, grads)
        each = list(zip(self._parts, works, grouped, self._grouped(do), strict=True))
        started = [
            self._started(*part.state_back(work, qkv, pull, out))
            for (part, work, qkv, pull), out in zip(each, dq, strict=True)
        ]
        for (part, _, qkv, pull), (work, pending), *into in zip(each, started, dk, dv, strict=True):
            part.rest(work, qkv, pull, part.behind(pending.wait()), (into[0], into[1]))
        return grads[0], grads[1], grads[2]

    def _started(self, work: Any, state: torch.Tensor) -> tuple[Any, Pending]:
        return work, self._exchange.gather(state)

    def _grouped(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """[1, pairs of a group, n, dim], each a view."""
        flat = x.view(1, -1, *x.shape[2:])
        return [flat[:, first:last] for first, last in self._cut]
