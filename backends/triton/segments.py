"""A part of a longer sequence on the kernels of linear and momentum attention: with the state that reaches it
from the parts before it, and the one that it hands on; forward and back.

A state is one flat float32 tensor: S, with momentum P, and z, of every (batch, head). Forward the parts
combine by ``S <- S + c(L) P + S';  P <- beta^L P + P';  z <- z + z'``, where S and P are in units of
gamma / (1 - beta); back in time ``R``, ``Q`` and ``y`` of the queries combine by the same rule, from the last
part to the first.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from mtbench.spec import Case

from . import full, gradients, scan
from .launch import Launch, start
from .plan import GRAIN, make_plan
from .states import States, between, segment_states, whole

__all__ = ["Adjoint", "Kept", "Segment"]


@dataclass(frozen=True)
class Kept:
    """What the backward of a part wants of its forward."""

    o: torch.Tensor
    den: torch.Tensor
    before: States
    """Causal: before each of the part's own segments. Else the whole sequence's."""


@dataclass(frozen=True)
class Adjoint:
    """What the second half of the backward wants of the first."""

    dq: torch.Tensor
    delta: torch.Tensor
    own: States
    """Causal: of each of the part's own segments. Else of the part."""


class Segment:
    """One part.

    Args:
        case: its own sizes: seq_len is the part's.
        reach: positions of the whole sequence.
        after: those after the part.
        launch: what is done with a kernel; `mtbench` users leave it.
        processors: of the card; None asks it.
        tf32: whether float32 is multiplied in TF32.
        segments: parts that it is itself cut into at most, for programs that work in parallel.

    Raises:
        ValueError: it is not the last part and not whole chunks: what comes back from behind it would not
            be at a chunk's end.
    """

    def __init__(
        self,
        case: Case,
        *,
        reach: int,
        after: int,
        launch: Launch = start,
        processors: int | None = None,
        tf32: bool = False,
        segments: int | None = None,
    ) -> None:
        if after and case.seq_len % GRAIN:
            raise ValueError(f"a part of {case.seq_len} positions before others must be whole {GRAIN}s")
        if processors is None:
            processors = 1
            if case.device == "cuda":
                processors = torch.cuda.get_device_properties("cuda").multi_processor_count
        self.plan = make_plan(
            case, case.device, processors, tf32=tf32, segments=segments, reach=reach, parallel=False
        )
        self._launch = launch
        self._behind = self.plan
        if case.spec.kind == "momentum" and not case.spec.causal:
            # A key's weight (eq 14) counts the positions to the end of the whole sequence.
            to_end = torch.full((case.batch,), case.seq_len + after, dtype=torch.int32, device=case.device)
            self._behind = dataclasses.replace(self.plan, lengths=to_end)

    @property
    def sum_size(self) -> int:
        """Numbers of S, and of P, in a flat state: padded as the tiles are."""
        return self._pairs * math.prod(States.shape(self.plan))

    def sums(self, k: torch.Tensor, v: torch.Tensor) -> States:
        """Those of each of the part's own segments; k and v are contiguous [batch, heads, n, dim]."""
        return segment_states(self.plan, self._launch, self.plan.keys, k, v)

    def state(self, own: States) -> torch.Tensor:
        """What the part hands on, from its `sums`, which stay as they are."""
        return self._state(own, back=False)

    def output(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        own: States,
        first: torch.Tensor | None,
        o: torch.Tensor | None = None,
    ) -> Kept:
        """The part's output, in `o` where that is given. `first` is the state before it, None where nothing
        is; without a causal mask it is the whole sequence's, at its end. Causal: `own` is used up."""
        keep = self.plan.case.mode == "forward_backward"
        given = None if first is None else self.views(first)
        if not self._causal:
            assert given is not None  # noqa: S101  (the contract)
            o, den = full.output(self.plan, self._launch, q, given, keep=keep, o=o)
            before = given
        else:
            before = between(self.plan, self._launch, self.plan.keys, own, given, back=False)
            o, den = scan.output(self.plan, self._launch, q, k, v, before, keep=keep, o=o)
        return Kept(o, o if den is None else den, before)

    def query_gradients(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        do: torch.Tensor,
        kept: Kept,
        dq: torch.Tensor | None = None,
    ) -> Adjoint:
        """dq, in the tensor given where one is, and the sums over the part's queries."""
        dq, delta = gradients.of_queries(
            self.plan, self._launch, q, k, v, kept.o, do, kept.den, kept.before, dq
        )
        own = segment_states(self.plan, self._launch, self.plan.queries, q, do, kept.den, delta)
        return Adjoint(dq, delta, own)

    def state_back(self, adjoint: Adjoint) -> torch.Tensor:
        """What the part hands on to those before it; without a causal mask, to all."""
        return self._state(adjoint.own, back=True)

    def key_value_gradients(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        do: torch.Tensor,
        kept: Kept,
        adjoint: Adjoint,
        last: torch.Tensor | None,
        into: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of k and v, in the tensors given where they are. `last` is the sums over the queries
        after the part, None where there are none; without a causal mask those over all."""
        given = None if last is None else self.views(last)
        if self._causal:
            after = between(self.plan, self._launch, self.plan.queries, adjoint.own, given, back=True)
        else:
            assert given is not None  # noqa: S101  (the contract)
            after = given
        return gradients.of_keys_and_values(
            self._behind, self._launch, q, k, v, do, kept.den, adjoint.delta, after, into
        )

    def views(self, flat: torch.Tensor) -> States:
        """S, P and z of a flat state, in one slot."""
        rows, columns = States.shape(self.plan)
        lead, size = (self._pairs, 1), self.sum_size
        s, p, z = flat[:size], flat[size : -self._pairs * columns], flat[-self._pairs * columns :]
        return States(
            s.view(*lead, rows, columns),
            p.view(*lead, rows, columns) if p.numel() else None,
            z.view(*lead, columns),
        )

    def _state(self, own: States, *, back: bool) -> torch.Tensor:
        assert own.z is not None  # noqa: S101  (`sums` and `query_gradients` make them)
        numbers = self.sum_size * (1 if own.p is None else 2) + self._pairs * own.z.shape[-1]
        flat = own.z.new_empty(numbers)
        cut = self.plan.queries if back else self.plan.keys
        whole(self.plan, self._launch, cut, own, self.views(flat), back=back)
        return flat

    @property
    def _pairs(self) -> int:
        return self.plan.case.batch * self.plan.case.heads

    @property
    def _causal(self) -> bool:
        return self.plan.case.spec.causal
