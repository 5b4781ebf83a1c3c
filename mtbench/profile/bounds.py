"""The verdict: what bounds a call.

Two times of a call, both measured without a profiler, the fastest sample of each: ``wall``, what the host
waits, and ``busy``, in which the device worked on it: on a GPU the device clock, on a CPU the processor's own
time, no longer than the wall, with what a neighbour held up. And three that this machine needs at the least,
by ceilings measured on it:

- ``dispatch``: a call that does next to nothing, and as many more operators that do next to nothing as it has
  launches;
- ``memory``: its bytes at the rate of a copy;
- ``products``: its operations at the rate of a product of two large matrices in its dtype, or the time in
  which the GPU's counters saw its tensor or float units at work, whichever is more.

The first rule that holds is the verdict:

1. **waiting for the host**: busy is under half of the wall, and what is idle is over `HOST_FACTOR` times the
   dispatch: the device waits for something that is no launch.
2. **launch-bound**: on a GPU busy is under half of the wall; on a CPU, where launching is work too, the
   dispatch is over half of the wall.
3. **memory-bound** or **compute-bound**: memory, or products, whichever is more, is over half of busy.
4. **latency-bound**: the device is busy, and neither its memory nor its arithmetic is. Steps wait for each
   other, there are too few of them at once, or they do what no ceiling counts (exponentials, conversions).
"""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.floor import SAME_UNITS
from mtbench.profile.record import Bound, Machine, Work
from mtbench.spec import Dtype

__all__ = [
    "COMPUTE",
    "HALF",
    "HOST",
    "HOST_FACTOR",
    "LATENCY",
    "LAUNCH",
    "MEMORY",
    "VERDICTS",
    "Facts",
    "bound_of",
]

HOST, LAUNCH, MEMORY, COMPUTE, LATENCY = VERDICTS = (
    "waiting for the host",
    "launch-bound",
    "memory-bound",
    "compute-bound",
    "latency-bound",
)
HALF = 0.5
HOST_FACTOR = 4.0
"""The dispatch is the least; a real operator, with its checks and allocations, takes some times as long."""

CHANGE = {
    HOST: "what the host does between launches (Python, waiting, copies) has to go, or to overlap",
    LAUNCH: "fewer and larger kernels: fuse them, compile the function, replay a CUDA graph, batch more",
    MEMORY: "less traffic: fuse what passes through memory, keep tiles in registers, narrower dtypes",
    COMPUTE: "less arithmetic, or units that do it faster: tensor cores, a narrower dtype",
    LATENCY: "more that runs at once: more blocks or warps, deeper pipelines, fewer steps in a row",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules look at."""

    device: str
    dtype: Dtype
    wall_ms: float
    busy_ms: float
    launches: float
    """Kernels on a GPU, operators on a CPU; a compiled program on a CPU is one."""
    tensor_share: float | None = None
    """Of busy, in which the GPU's tensor or float units were at work, by its own counters."""


def bound_of(facts: Facts, work: Work, machine: Machine) -> Bound:
    """The verdict by the rules above."""
    wall, busy = facts.wall_ms, min(facts.busy_ms, facts.wall_ms)
    dispatch = machine.call_ms + max(0.0, facts.launches - 1) * machine.operator_ms
    idle = wall - busy
    copy = machine.copy_bytes_per_s
    product = machine.matmul_flop_per_s.get(SAME_UNITS.get(facts.dtype, facts.dtype))
    memory = work.bytes / copy * 1e3 / busy if copy and busy else None
    products = work.flop / product * 1e3 / busy if product and busy else None
    if facts.tensor_share is not None:
        products = max(products or 0.0, facts.tensor_share)
    shares = {"busy": busy / wall, "dispatch": dispatch / wall, "memory": memory, "products": products}
    if idle > HALF * wall and idle > HOST_FACTOR * dispatch:
        told = (
            f"the device works {busy / wall:.0%} of the call; {_ms(idle)} are idle, and "
            f"{_launches(facts)} cost {_ms(dispatch)} at the least"
        )
        return _bound(HOST, told, shares)
    launching = idle > HALF * wall if facts.device == "cuda" else dispatch > HALF * wall
    if launching:
        told = f"{_launches(facts)} cost {_ms(dispatch)} at the least, of a call of {_ms(wall)}"
        if facts.device == "cuda":
            told += f"; the device works {busy / wall:.0%} of it"
        return _bound(LAUNCH, told, shares)
    known = {MEMORY: memory or 0.0, COMPUTE: products or 0.0}
    verdict = max(known, key=lambda name: known[name])
    rates = f"memory takes {_share(memory)} of the busy time, products {_share(products)}"
    if known[verdict] > HALF:
        return _bound(verdict, rates, shares)
    return _bound(LATENCY, f"the device works {busy / wall:.0%} of the call, and yet {rates}", shares)


def _bound(verdict: str, because: str, shares: dict[str, float | None]) -> Bound:
    return Bound(verdict=verdict, because=because, change=CHANGE[verdict], shares=shares)


def _launches(facts: Facts) -> str:
    noun = "kernel" if facts.device == "cuda" else "operator"
    return f"{facts.launches:,.0f} {noun}{'' if round(facts.launches) == 1 else 's'}"


def _ms(ms: float) -> str:
    return f"{ms:.3g} ms"


def _share(share: float | None) -> str:
    return "an unknown part" if share is None else f"{share:.0%}"
