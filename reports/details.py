"""What a row of the page's table opens to: its samples, what the kernel chose, and where it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtbench.measure.statistics import Samples
from mtbench.results import Measurement, Run

from .format import clean, error, seconds
from .header import flatten, mapping

__all__ = ["row_details"]

SAMPLES = 300_000
"""Samples that a page carries; beyond that each row shows fewer, spread evenly over its own."""
LAUNCHES = 8
LINES = 40
"""Lines of a list that are kept, so that a strange row cannot fill the page."""

Block = tuple[str, tuple[tuple[str, str], ...]]


def row_details(run: Run, rows: Sequence[Measurement]) -> dict[str, Any]:
    """For JSON, a row each in the order given: ``rows`` has the numbers of its ``blocks``, which many share;
    ``samples`` by clock, sorted, a list a launch."""
    found: dict[Block, int] = {}
    told = [[found.setdefault(block, len(found)) for block in _blocks(run, row)] for row in rows]
    taken = sum(len(s.values) for row in rows for s in (row.wall_ms, row.device_ms) if s)
    share = min(1.0, SAMPLES / max(taken, 1))
    return {
        "rows": told,
        "blocks": list(found),
        "samples": {
            clock: [_spread(getattr(row, f"{clock}_ms"), share) for row in rows]
            for clock in ("wall", "device")
        },
    }


def _spread(found: Samples | None, share: float) -> dict[str, Any] | None:
    """The samples of each launch in order of size, or some of them at even distances with both ends."""
    if found is None:
        return None
    kept = []
    for launch in found.launches[:LAUNCHES]:
        ordered = sorted(launch)
        most = max(8, int(len(ordered) * share))
        if most < len(ordered):
            last = len(ordered) - 1
            ordered = [ordered[round(at * last / (most - 1))] for at in range(most)]
        kept.append([_finite(v) for v in ordered])
    low, high = found.interval
    return {
        "median": _finite(found.median),
        "interval": [_finite(low), _finite(high)],
        "taken": len(found.values),
        "launches": kept,
    }


def _finite(value: float) -> float | None:
    """Four digits; JSON has no infinity."""
    return float(f"{value:.4g}") if abs(value) < float("inf") else None


def _blocks(run: Run, row: Measurement) -> Iterable[Block]:
    why = [row.reason, row.wall_reason and f"wall clock: {row.wall_reason}"]
    why += [row.device_reason and f"device clock: {row.device_reason}"]
    measured = {
        "remarks": "; ".join(part for part in why if part),
        "flags": ", ".join(row.flags),
        "cache": row.cache,
        "layout": row.layout,
        "memory": row.memory_method,
        "compared": row.compared,
        **{f"error of {a}": f"{error(v.relative)} of {error(v.tolerance)}" for a, v in row.agreement.items()},
    }
    yield "Row", (("id", clean(row.id, 300)),)
    yield from _block("How it was measured", measured.items())
    yield from _block("What the kernel chose", flatten(row.config) if row.config else ())
    yield from _block("Seconds in each stage", ((k, seconds(v)) for k, v in row.stage_s.items()))
    workers = mapping(mapping(run.machines.get(row.hardware)).get("workers"))
    for name in (f"{row.backend} on {row.case.device}", row.backend):
        if name in workers:
            yield from _block(f"Worker {clean(name, 80)}", flatten(workers[name]))
            break
    for number, launch in enumerate(row.machine[:LAUNCHES], start=1):
        title = f"The machine meanwhile{f', launch {number}' if row.launches > 1 else ''}"
        yield from _block(title, flatten(_rounded(launch)))


def _block(title: str, lines: Iterable[tuple[object, object]]) -> Iterable[Block]:
    kept = tuple((clean(key, 80), clean(value, 600)) for key, value in lines if value not in ("", None))
    if kept:
        yield title, kept[:LINES]


def _rounded(value: Any) -> Any:
    """The same, with floats as a person writes them."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value
