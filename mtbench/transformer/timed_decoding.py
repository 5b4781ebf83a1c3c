"""Sentences decoded in batches, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch

from mtbench.inputs import Array

__all__ = ["decoded_rows"]


def decoded_rows(
    decode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    groups: Sequence[Mapping[str, Array]],
    device: str,
) -> tuple[dict[int, list[int]], float]:
    """What `decode` makes of every source, by its place, and the seconds of all its calls but a first one of
    each shape, which no clock sees and which is done again.

    Args:
        decode: [batch, n] symbols of sources, [batch, source_len], and how many of each are real, [batch].
        groups: of each shape ``source``, [steps, batch, source_len], ``source_lengths``, ``place`` and
            ``there``, [steps, batch]; what is not there is not returned.
        device: where it is done, in torch's words.
    """
    rows: dict[int, list[int]] = {}
    seconds = 0.0
    for group in groups:
        for at in range(len(group["source"])):
            source, lengths = (
                torch.from_numpy(group[name][at]).to(device) for name in ("source", "source_lengths")
            )
            if at == 0:
                decode(source, lengths)
            began = _now(device)
            found = decode(source, lengths)
            seconds += _now(device) - began
            for place, there, row in zip(group["place"][at], group["there"][at], found.tolist(), strict=True):
                if there:
                    rows[int(place)] = row
    return rows, seconds


def _now(device: str) -> float:
    """When all that was started is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
