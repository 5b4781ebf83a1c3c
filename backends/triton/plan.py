"""What is settled once a case, before any call: tiles, segments and the momentum's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mtbench.spec import Case

from .tables import Decay, decay, weights
from .tiles import Tiles, linear_tiles, softmax_tiles

__all__ = ["Plan", "make_plan"]

DOT = {"float32": "ieee", "bfloat16": "bf16", "float16": "tf32"}
"""What the chunked kernels take their products in: see `product` in maps.py."""
CARD = 132
"""Multiprocessors assumed where no card is asked: a Hopper's."""
SHORTEST = 1024
"""A segment has at least so many positions, or its states cost more than the parallelism brings."""
MOST = 64
"""Segments at most: each program first adds up the states of all the segments before its own."""


NO_DECAY = Decay(carry=0.0, keep=0.0)
"""Linear attention's, which no kernel reads."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a case that its kernels need beside q, k and v."""

    case: Case
    tiles: Tiles
    segments: int = 1
    """Parts of the sequence that programs take in parallel; softmax has no use for them."""
    segment: int = 0
    """Positions a segment, a multiple of the chunk; the last may have fewer."""
    u: torch.Tensor | None = None
    """u(n), [entries] float32; None without momentum."""
    b: torch.Tensor | None = None
    """beta^n, [entries] float32."""
    over_chunk: Decay = NO_DECAY
    over_segment: Decay = NO_DECAY
    gain: float = 1.0
    """gamma / (1 - beta)."""

    @property
    def last(self) -> int:
        """The last entry of u and b."""
        return self.u.numel() - 1 if self.u is not None else 0

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
            "DOT": DOT[self.case.dtype],
        }

    @property
    def config(self) -> Mapping[str, Any]:
        """For the results' record."""
        return asdict(self.tiles) | {"segments": self.segments}


def make_plan(case: Case, device: str, processors: int = CARD) -> Plan:
    """The plan of a case.

    Args:
        case: what to compute.
        device: where the weights go, in torch's words.
        processors: the card's multiprocessors.
    """
    if case.spec.kind == "softmax":
        return Plan(case=case, tiles=softmax_tiles(case))
    tiles = linear_tiles(case)
    segments, segment = _segments(case, tiles, processors)
    spec = case.spec
    if spec.kind == "linear":
        return Plan(case=case, tiles=tiles, segments=segments, segment=segment)
    u, b = weights(spec.beta, max(case.seq_len, tiles.rows), device)
    return Plan(
        case=case,
        tiles=tiles,
        segments=segments,
        segment=segment,
        u=u,
        b=b,
        over_chunk=decay(spec.beta, tiles.rows),
        over_segment=decay(spec.beta, segment),
        gain=spec.gamma / (1 - spec.beta),
    )


def _segments(case: Case, tiles: Tiles, processors: int) -> tuple[int, int]:
    """How many, and the positions of each.

    One program a (batch, head) and value block leaves most of a card idle when those are few. Segments fill
    it, for one more read of k and v; where the card is half full already they are not worth that.
    """
    programs = case.batch * case.heads * tiles.value_blocks
    # A thread has up to 255 registers of a multiprocessor's 65536: 8 warps fill one.
    at_once = processors * (8 // tiles.warps)
    wanted = 1 if programs > processors // 2 else at_once // programs
    wanted = max(1, min(wanted, MOST, case.seq_len // SHORTEST))
    chunks = -(-case.seq_len // tiles.rows)
    per_segment = -(-chunks // wanted)
    return -(-chunks // per_segment), per_segment * tiles.rows
