"""The roofline of a row: the least time that the machine's measured ceilings allow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mtbench.floor import NOT_MEASURED, Ceilings, floor_ms
from mtbench.results import Measurement
from mtbench.spec import Case
from mtbench.work import operations

from .format import clean, listing
from .settings import Clock, samples

__all__ = ["Bound", "Share", "clock_of", "least_ms", "missing_ceilings", "roofline_share"]

Bound = Literal["copy", "product"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """How near a row comes to its roofline."""

    value: float
    """The least time over the median: 1 is the roofline itself. More means that the row does less work than
    is counted, that its tensors lay in a cache, or that the ceiling was measured too low."""
    low: float
    high: float
    """The 95% interval, of the row's time alone."""
    least_ms: float
    bound: Bound
    """What takes the least time: copying its tensors, or its products."""


def least_ms(case: Case, ceilings: Mapping[str, Ceilings]) -> tuple[float, Bound] | None:
    """The larger of two times, in ms: its tensors at the rate of a copy (`mtbench.floor`), and its operations
    (`work.operations`) at that of a product in its dtype. None where one of the two rates was not measured.

    A form that multiplies in a narrower type than its tensors have (TF32) may be faster.
    """
    copy = floor_ms(case, ceilings)
    rate = ceilings[case.device].matmul(case.dtype) if case.device in ceilings else None
    if copy is None or rate is None:
        return None
    product = operations(case) / rate / case.world_size * 1e3
    return (copy, "copy") if copy >= product else (product, "product")


def clock_of(case: Case) -> Clock:
    """What a share is reckoned by: on a GPU the device clock, as the ceilings are."""
    return "device" if case.device == "cuda" else "wall"


def roofline_share(row: Measurement, ceilings: Mapping[str, Ceilings]) -> Share | None:
    """That of a ranked row; None where it has no time on the clock of the ceilings, or those are missing."""
    found, least = samples(row, clock_of(row.case)), least_ms(row.case, ceilings)
    if found is None or least is None:
        return None
    ms, bound = least
    low, high = found.interval
    return Share(value=ms / found.median, low=ms / high, high=ms / low, least_ms=ms, bound=bound)


def missing_ceilings(
    rows: Iterable[Measurement], ceilings: Mapping[str, Mapping[str, Ceilings]]
) -> list[str]:
    """What was not measured of all that the ranked rows' rooflines need: ``a copy on cpu``, say. The ceilings
    are those of each kind of machine."""
    found: dict[str, None] = {}
    needed = ((row.hardware, row.case.device, row.case.dtype) for row in rows if row.ranked)
    for hardware, device, dtype in dict.fromkeys(needed):
        here = ceilings.get(hardware, NOT_MEASURED).get(device, Ceilings())
        lacking = [] if here.copy_bytes_per_s else ["a copy"]
        lacking += [] if here.matmul(dtype) else [f"a product in {dtype}"]
        if lacking:
            where = f"{device} of {clean(hardware, 60)}" if hardware else device
            found[f"{listing(lacking)} on {where}"] = None
    return list(found)
