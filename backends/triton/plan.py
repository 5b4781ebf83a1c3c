"""What is settled once a case, before any call: tiles, segments and the momentum's weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, TypeVarTuple

import torch

from mtbench.spec import Case

from ..by_distance import forgotten
from .parallel_tiles import fits, parallel_gradient_tiles, parallel_tiles
from .tables import Decay, decay, weights
from .tiles import (
    Tiles,
    key_value_tiles,
    linear_tiles,
    query_tiles,
    softmax_gradient_tiles,
    softmax_tiles,
)

__all__ = ["GRAIN", "MOST", "Cut", "Plan", "make_plan", "once_a_plan"]

Made = TypeVar("Made")
Parts = TypeVarTuple("Parts")

DOT = {"float32": "ieee", "bfloat16": "bf16", "float16": "tf32"}
CARD = 132
"""Multiprocessors assumed where no card is asked: a Hopper's."""
MOST = 64
"""Segments at most: their states are put together one after another."""
GRAIN = 128
"""The longest chunk of any kernel: a segment is whole chunks of all of them."""

FACTOR = 2.0**-64
"""beta^C at the least where u(i-j) is made of two factors, of which one is up to beta^-C: scores below 2^64
stay in float32. For chunks of 64 that is beta = .5."""

NO_DECAY = Decay(carry=0.0, keep=0.0)
"""Linear attention's, which no kernel reads."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A sequence in parts that programs take in parallel."""

    length: int
    segments: int
    segment: int
    """Positions a segment, a multiple of every kernel's chunk; the last may have fewer."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a case that its kernels need beside q, k and v."""

    case: Case
    tiles: Tiles
    """Those of the forward."""
    tf32: bool = False
    """Whether float32 is multiplied in TF32."""
    parallel: bool = False
    """Whether linear or momentum attention is computed from scores alone, without states."""
    gradient_tiles: tuple[Tiles, ...] = ()
    """Those of the kernel of dq, then of each launch of the one of dk and dv. The parallel form's are of one
    launch of its only kernel, or two."""
    queries: Cut
    keys: Cut
    """Causal: cut as the queries are. Softmax and the parallel form have no use for either."""
    lengths: torch.Tensor | None = None
    """The real keys of each batch entry, [batch] int32; None where all are. Whether there are any is settled
    with the case, what they are with a call (`of`)."""
    u: torch.Tensor | None = None
    """u(n), [entries] float32; None without momentum."""
    b: torch.Tensor | None = None
    """beta^n, [entries] float32."""
    gain: float = 1.0
    """gamma / (1 - beta)."""
    kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """See `once_a_plan`."""

    def of(self, lengths: torch.Tensor | None) -> Plan:
        """The plan with a call's own lengths, [batch], in place of the case's; None leaves those."""
        if lengths is None:
            return self
        own = replace(self, lengths=lengths.to(torch.int32).contiguous())
        if self.lengths is not None:  # what is kept depends on whether there are any
            object.__setattr__(own, "kept", self.kept)
        return own

    @property
    def dot(self) -> str:
        """What the chunked kernels take their products in: see `product` in maps.py."""
        return "tf32" if self.tf32 else DOT[self.case.dtype]

    @property
    def last(self) -> int:
        """The last entry of u and b."""
        return self.u.numel() - 1 if self.u is not None else 0

    def decay(self, positions: int) -> Decay:
        """What a state becomes over that many positions."""
        return decay(self.case.spec.beta, positions) if self.u is not None else NO_DECAY

    def forgets(self, tiles: Tiles) -> bool:
        """Whether a chunk forgets all but the one before it: see `forgotten`."""
        spec = self.case.spec
        return self.u is not None and spec.causal and forgotten(spec.beta, tiles.rows, self.dot)

    def factored(self, tiles: Tiles) -> bool:
        """Whether a kernel makes u(i-j) of two factors, as its tiles have it: see `by_factors` in maps.py."""
        return tiles.factored and self.forgets(tiles) and self.case.spec.beta**tiles.rows >= FACTOR

    def whole(self, cut: Cut, tiles: Tiles) -> bool:
        """Whether every chunk has all its rows, and every row is real."""
        return self.lengths is None and cut.length % tiles.rows == 0

    @property
    def constants(self) -> dict[str, Any]:
        """The compile-time constants that the chunked kernels share."""
        return {
            "D": self.case.head_dim,
            "DV": self.case.value_dim,
            "BD": self.tiles.head_dim,
            "BV": self.tiles.value_dim,
            "BT": self.tiles.rows,
            "NV": self.tiles.value_blocks,
            "WHOLE": self.whole(self.queries, self.tiles),
            "GROUPS": self.tiles.groups,
            "DOT": self.dot,
        }

    def softmax_constants(self, tiles: Tiles) -> dict[str, Any]:
        """Those of softmax, forward and back."""
        return {
            "CAUSAL": self.case.spec.causal,
            "D": self.case.head_dim,
            "DV": self.case.value_dim,
            "BD": tiles.head_dim,
            "BV": tiles.value_dim,
            "BM": tiles.rows,
            "BN": tiles.keys,
            "DOT": "tf32" if self.tf32 else "ieee",  # half-precision operands ignore it
        }

    def parallel_constants(self, tiles: Tiles) -> dict[str, Any]:
        """Those of the parallel form, forward and back."""
        return {
            "MOMENTUM": self.u is not None,
            "CAUSAL": self.case.spec.causal,
            "D": self.case.head_dim,
            "DV": self.case.value_dim,
            "BD": tiles.head_dim,
            "BV": tiles.value_dim,
            "BM": tiles.rows,
            "BN": tiles.keys,
            "DOT": self.dot,
        }

    def gradient_constants(self, cut: Cut, tiles: Tiles) -> dict[str, Any]:
        """Those of the kernels that go back."""
        causal = self.case.spec.causal
        return {
            "MOMENTUM": self.u is not None,
            "FORGETS": self.forgets(tiles),
            "FACTORED": self.factored(tiles),
            "CAUSAL": causal,
            "D": self.case.head_dim,
            "DV": self.case.value_dim,
            "BD": tiles.head_dim,
            "BV": tiles.value_dim,
            "BT": tiles.rows,
            "BLOCKS": tiles.head_blocks * tiles.value_blocks,
            "LD": self.tiles.head_dim,
            "LV": self.tiles.value_blocks * self.tiles.value_dim,
            "WHOLE": self.whole(cut, tiles),
            "GROUPS": tiles.groups,
            "DOT": self.dot,
        }

    @property
    def config(self) -> Mapping[str, Any]:
        """For the results' record."""
        if self.case.spec.kind == "softmax":
            return asdict(self.tiles)
        if self.parallel:
            return asdict(self.tiles) | {"parallel": True}
        cuts = {"segments": self.queries.segments, "key_segments": self.keys.segments}
        forms = {"forgets": self.forgets(self.tiles), "factored": self.factored(self.tiles)}
        return asdict(self.tiles) | cuts | forms


def once_a_plan(make: Callable[[Plan, *Parts], Made]) -> Callable[[Plan, *Parts], Made]:
    """A function of a plan, and of what can be hashed, that is called once for each of these and a plan, and
    for all plans that it is `of`: with other lengths its result must be the same."""

    @functools.wraps(make)
    def kept(plan: Plan, *parts: *Parts) -> Made:
        key = (make, *parts)
        made: Made | None = plan.kept.get(key)
        if made is None:
            made = plan.kept[key] = make(plan, *parts)
        return made

    return kept


def make_plan(
    case: Case,
    device: str,
    processors: int = CARD,
    *,
    tf32: bool = False,
    tiles: Tiles | None = None,
    gradient_tiles: tuple[Tiles, ...] | None = None,
    segments: int | None = None,
    reach: int = 0,
    parallel: bool | None = None,
) -> Plan:
    """The plan of a case.

    Args:
        case: what to compute.
        device: where the weights go, in torch's words.
        processors: the card's multiprocessors.
        tf32: whether float32 is multiplied in TF32, ten bits of mantissa.
        tiles: those of the forward's kernels, where others than the ones chosen for it are tried.
        gradient_tiles: the same of the backward's.
        segments: the same of how many parts the sequence has at most.
        reach: positions of the sequence that it is a part of, where it is one.
        parallel: whether by the parallel form; None: where that is chosen for it.
    """
    kind = case.spec.kind
    if parallel is None:
        parallel = fits(case)
    lengths = u = b = None
    if case.lengths is not None:
        lengths = torch.tensor(case.lengths, dtype=torch.int32, device=device)
    forward, backward = _chosen_tiles(case, parallel=parallel, tf32=tf32)
    tiles, own = tiles or forward, gradient_tiles or backward
    if kind == "momentum":
        rows = max(one.rows for one in (tiles, *own))
        length = max(case.seq_len, case.kv_len, rows, reach)
        u, b = weights(case.spec.beta, length, device, chunk=rows)
    cuts = []
    for length in (case.seq_len, case.kv_len):
        segment = length
        if kind != "softmax" and not parallel:
            most = segments or _segments(case, length, tiles, processors)
            segment = GRAIN * -(-length // (GRAIN * most))
        cuts.append(Cut(length=length, segments=-(-length // segment), segment=segment))
    return Plan(
        case=case,
        tiles=tiles,
        tf32=tf32,
        parallel=parallel,
        gradient_tiles=own,
        queries=cuts[0],
        keys=cuts[1],
        lengths=lengths,
        u=u,
        b=b,
        gain=case.spec.gamma / (1 - case.spec.beta),
    )


def _chosen_tiles(case: Case, *, parallel: bool, tf32: bool) -> tuple[Tiles, tuple[Tiles, ...]]:
    """Those of the forward, and of each launch of the backward."""
    if case.spec.kind == "softmax":
        return softmax_tiles(case), tuple(softmax_gradient_tiles(case, by_keys=by) for by in (False, True))
    if parallel:
        return parallel_tiles(case, tf32=tf32), parallel_gradient_tiles(case, tf32=tf32)
    return linear_tiles(case, tf32=tf32), (query_tiles(case, tf32=tf32), *key_value_tiles(case, tf32=tf32))


def _segments(case: Case, length: int, tiles: Tiles, processors: int) -> int:
    """How many at most, of a sequence that long.

    One program a (batch, head) and value block leaves most of a card idle when those are few. Segments fill
    it, for one more read of k and v; forward, where there is a program for every other multiprocessor
    already, they are not worth that. The kernels that go back wait longer: they are worth it up to twice as
    many programs, of four warps.
    """
    programs = case.batch * case.heads * tiles.value_blocks
    # A thread has up to 255 registers of a multiprocessor's 65536: 8 warps fill one.
    at_once = processors * (8 // tiles.warps)
    enough = processors // 2 if case.mode == "forward" else at_once // 2
    wanted = 1 if programs > enough else at_once // programs
    return max(1, min(wanted, MOST, -(-length // GRAIN)))
