"""What is settled once a case, before any call: tiles, segments and how the kernels round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from mtbench.spec import Case

from ..by_distance import forgotten
from .arithmetic import Arithmetic, arithmetic_of
from .tiles import Tiles, padded, scan_tiles, softmax_tiles

__all__ = ["Plan", "make_plan", "processors"]

CARD = 132
"""Multiprocessors assumed where no card is asked: a Hopper's."""
MOST = 64
"""Segments at most: their states are put together one after another."""
LEAST_FACTOR = 2.0**-32
"""What a score is multiplied by at the least before it is multiplied by the other factor of its u."""
GRAIN = 128
"""The longest chunk of any kernel: a segment is whole chunks of all of them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a case that its kernels need beside q, k and v."""

    case: Case
    numbers: Arithmetic
    tiles: Tiles
    """Those of the forward."""
    segment: int
    """Positions a segment, a multiple of every kernel's chunk; the last may have fewer."""

    @property
    def pairs(self) -> int:
        """(batch, head) pairs."""
        return self.case.batch * self.case.heads

    @property
    def segments(self) -> int:
        """Parts of the sequence that programs take in parallel."""
        return -(-self.case.seq_len // self.segment)

    @property
    def causal(self) -> bool:
        """Whether a query sees the keys up to its own position alone."""
        return self.case.spec.causal

    @property
    def gain(self) -> float:
        """The factor of every weight, gamma / (1 - beta)."""
        return self.case.spec.gamma / (1 - self.case.spec.beta)

    @property
    def momentum(self) -> bool:
        """Whether there is a state P; without, every weight is 1."""
        return self.case.spec.kind == "momentum"

    def forgets(self, rows: int) -> bool:
        """Whether a chunk of so many rows forgets all but the one before it: see `forgotten`."""
        return self.momentum and self.causal and forgotten(self.case.spec.beta, rows, self.numbers.dot)

    def factored(self, rows: int) -> bool:
        """Whether u(i-j) of a chunk of so many rows is made of two factors, and has no table.

        Where a chunk forgets, for then beta is far from 1 and 1 - beta^(i-j+1) loses no digits; and where
        beta^(rows+1), which multiplies a score first, leaves float32's exponents to scores: down to 5e-29,
        which q and k make that are both 33 below 0.
        """
        return self.forgets(rows) and self.case.spec.beta ** (rows + 1) >= LEAST_FACTOR

    @property
    def dims(self) -> tuple[int, int]:
        """head_dim and value_dim, padded."""
        return padded(self.case)

    @property
    def config(self) -> Mapping[str, Any]:
        """For the results' record."""
        return asdict(self.tiles) | ({"segments": self.segments} if self.case.spec.kind != "softmax" else {})


def make_plan(case: Case, processors: int = CARD, *, segments: int | None = None) -> Plan:
    """The plan of a case on a card of so many multiprocessors, in `segments` parts where that is given."""
    if case.spec.kind == "softmax":
        return Plan(case=case, numbers=arithmetic_of(case), tiles=softmax_tiles(case), segment=case.seq_len)
    tiles = scan_tiles(case)
    most = segments or _segments(case, tiles, processors)
    segment = GRAIN * -(-case.seq_len // (GRAIN * most))
    return Plan(case=case, numbers=arithmetic_of(case), tiles=tiles, segment=segment)


def processors(device: str) -> int:
    """The multiprocessors of the card that the kernels run on."""
    if device != "cuda":
        return CARD
    return int(getattr(jax.local_devices(backend=device)[0], "core_count", CARD))


def _segments(case: Case, tiles: Tiles, processors: int) -> int:
    """How many at most.

    One program a (batch, head) and value block leaves most of a card idle when those are few. Segments fill
    it, for one more read of k and v; forward, where there is a program for every other multiprocessor
    already, they are not worth that. The kernels that go back wait longer: they are worth it up to twice as
    many programs, of four warps.
    """
    programs = case.batch * case.heads * tiles.blocks
    # A thread has up to 255 registers of a multiprocessor's 65536: 8 warps fill one.
    at_once = processors * (8 // tiles.warps)
    enough = processors // 2 if case.mode == "forward" else at_once // 2
    wanted = 1 if programs > enough else at_once // programs
    return max(1, min(wanted, MOST, -(-case.seq_len // GRAIN)))
