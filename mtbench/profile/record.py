"""What a profile is on disk: ``profile.json``, from which its page and its screen are made.

All times are of one call, in milliseconds, and all sizes in bytes. What a tool could not give is missing, and
`Profile.missing` says why, in a line a part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtbench.errors import BadInput
from mtbench.floor import SAME_UNITS
from mtbench.results import Measurement

__all__ = [
    "FILE",
    "RESIDENT_METHOD",
    "SCHEMA_VERSION",
    "Block",
    "Bound",
    "Flame",
    "Kernel",
    "Machine",
    "Made",
    "MemoryCourse",
    "Operator",
    "Piece",
    "Profile",
    "Traced",
    "Work",
    "is_profile",
    "read_course",
    "read_flame",
    "read_profile",
]

SCHEMA_VERSION = 1
FILE = "profile.json"
RESIDENT_METHOD = "resident set of the process, looked at every millisecond"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One GPU kernel, copy or fill: all its launches of a call together."""

    name: str
    calls: float
    """Launches a call: no whole number where calls differ."""
    ms: float
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    """Of the launch that took longest; empty for a copy, and where the profiler does not tell."""
    registers: int | None = None
    """A thread."""
    shared_bytes: int | None = None
    """A block."""
    spilled_bytes: int | None = None
    """A thread's stack in local memory: what did not fit in registers; None where nothing tells."""
    operator: str = ""
    """What launched it: an operator of torch, an instruction of XLA."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """Nsight Compute's (`mtbench.profile.ncu`)."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator on the host, or one instruction of an XLA program on a CPU."""

    name: str
    calls: float
    self_ms: float
    """Without the operators that it called."""
    total_ms: float
    shapes: str = ""
    """Of its inputs, at its longest call."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Something that ran from one moment of the call to another."""

    lane: str
    """A GPU's stream, or a thread."""
    name: str
    start_ms: float
    ms: float


@dataclass(frozen=True, kw_only=True)
class Traced:
    """What a framework's profiler saw, median over the calls traced."""

    calls: int
    wall_ms: float
    busy_ms: float
    """The union of the kernels on a GPU, of the operators on a CPU."""
    before_ms: float
    """Of the host, until the first kernel began."""
    between_ms: float
    """Gaps between kernels."""
    after_ms: float
    """From the last kernel's end to the call's."""
    launches: float
    """Kernels on a GPU; operators on a CPU, those alone that call no other."""
    kernels: tuple[Kernel, ...] = ()
    operators: tuple[Operator, ...] = ()
    pieces: tuple[Piece, ...] = ()
    """Of the call whose time is the median."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Memory that was in use when the most was."""

    bytes: int
    what: str
    """The operator that asked for it, or the shape of the array."""
    stack: tuple[str, ...] = ()
    """Who called it, the innermost first."""


@dataclass(frozen=True, kw_only=True)
class MemoryCourse:
    """Memory over the time of one call, or of several."""

    method: str
    points: tuple[tuple[float, int], ...]
    """Milliseconds, and bytes beyond what was in use at the start."""
    peak_bytes: int
    at_peak: tuple[Block, ...] = ()
    """The block that set the peak first, then the others that were in use, by size."""


@dataclass(frozen=True, kw_only=True)
class Flame:
    """A frame, and those it called. The first is no frame, but all of them."""

    name: str
    seconds: float
    children: tuple[Flame, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the compiler made: files beside the page, and what is in them."""

    files: tuple[tuple[str, int], ...] = ()
    digest: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By what was read (``HLO``, ``PTX of NAME``), counts in words."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a call does."""

    flop: float
    bytes: float
    """Moved between the chip and its memory."""
    flop_from: str
    bytes_from: str
    """Who says so: the attention's definition is the least; a form may do more, and then others know."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine reaches on a device, by one framework (`mtbench.profile.machine`)."""

    measured: str
    """When, in UTC."""
    copy_bytes_per_s: float | None
    matmul_flop_per_s: Mapping[str, float]
    call_ms: float
    """A call that does next to nothing, waited for."""
    operator_ms: float
    """What one more operator that does next to nothing adds to it."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The verdict: what bounds the call. `mtbench.profile.bounds` has the rules."""

    verdict: str
    because: str
    """The figures that decided, in a sentence."""
    change: str
    """What would have to change."""
    shares: Mapping[str, float | None] = field(default_factory=dict)
    """Of the call's time: ``busy``, ``dispatch``, ``memory`` and ``products``."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All of it."""

    row: Measurement
    """The case as the sweep's own worker measured it, with no profiler near."""
    environment: Mapping[str, Any]
    started: str = ""
    """When, in UTC."""
    command: tuple[str, ...] = ()
    """The words it was asked for with, no absolute path among them."""
    bound: Bound
    work: Work
    machine: Machine
    traced: Traced | None = None
    memory: tuple[MemoryCourse, ...] = ()
    flame: Flame | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    """perf's, a call."""
    made: Made = field(default_factory=Made)
    traces: tuple[str, ...] = ()
    """Files beside the page."""
    remarks: tuple[str, ...] = ()
    """What to know before one believes it: the profiler disturbed the run, say."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """By part, why it is not there."""

    @property
    def wall_ms(self) -> float:
        """The median of the sweep's own wall clock."""
        assert self.row.wall_ms is not None  # noqa: S101  (no profile is made of another row)
        return self.row.wall_ms.median

    @property
    def device_ms(self) -> float | None:
        """That of the device clock; None on a CPU, and where it does not work."""
        return None if self.row.device_ms is None else self.row.device_ms.median

    @property
    def least_ms(self) -> float | None:
        """The roofline of what it does: the longer of its bytes at the rate of a copy and its operations at
        that of a product in its dtype; None where one of the two was not measured."""
        dtype = self.row.case.dtype
        product = self.machine.matmul_flop_per_s.get(SAME_UNITS.get(dtype, dtype))
        if not (product and self.machine.copy_bytes_per_s):
            return None
        return max(self.work.bytes / self.machine.copy_bytes_per_s, self.work.flop / product) * 1e3

    def to_json(self) -> str:
        """Of the file."""
        told = {key: value for key, value in asdict(self).items() if key != "row"}
        told = {"schema": SCHEMA_VERSION, "row": self.row.to_row(), **told}
        return json.dumps(told, indent=1, allow_nan=False) + "\n"


def is_profile(place: Path) -> bool:
    """Whether `read_profile` would look there: a folder with a profile in it, or a file, as no run is one."""
    return _file(place).is_file()


def _file(place: Path) -> Path:
    return place if place.is_file() else place / FILE


def read_profile(place: Path) -> Profile:
    """The profile in a folder, or in a file of any name.

    Raises:
        BadInput: there is none, or a newer mtbench wrote it.
    """
    file = _file(place)
    if not file.is_file():
        raise BadInput(f"{place} holds no profile: it has no {FILE}")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        schema = told.pop("schema")
        if schema <= SCHEMA_VERSION:
            return _read(told)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{file} is no profile: {type(error).__name__}: {error}") from error
    newest = f"this one reads {SCHEMA_VERSION}"
    raise BadInput(f"{place} has a profile of schema {schema} and needs a newer mtbench ({newest})")


def _read(told: dict[str, Any]) -> Profile:
    traced, flame = told["traced"], told["flame"]
    return Profile(
        **told
        | {
            "row": Measurement.from_row(told["row"]),
            "command": tuple(told["command"]),
            "bound": Bound(**told["bound"]),
            "work": Work(**told["work"]),
            "machine": Machine(**told["machine"]),
            "traced": None if traced is None else _traced(traced),
            "memory": tuple(read_course(course) for course in told["memory"]),
            "flame": None if flame is None else read_flame(flame),
            "made": Made(
                files=tuple((str(name), int(size)) for name, size in told["made"]["files"]),
                digest=told["made"]["digest"],
            ),
            "traces": tuple(told["traces"]),
            "remarks": tuple(told["remarks"]),
        }
    )


def _traced(told: dict[str, Any]) -> Traced:
    kernels = (k | {"grid": tuple(k["grid"]), "block": tuple(k["block"])} for k in told["kernels"])
    return Traced(
        **told
        | {
            "kernels": tuple(Kernel(**kernel) for kernel in kernels),
            "operators": tuple(Operator(**operator) for operator in told["operators"]),
            "pieces": tuple(Piece(**piece) for piece in told["pieces"]),
        }
    )


def read_course(told: Mapping[str, Any]) -> MemoryCourse:
    """What `dataclasses.asdict` made of one, through JSON or not."""
    blocks = (block | {"stack": tuple(block["stack"])} for block in told["at_peak"])
    return MemoryCourse(
        **dict(told)
        | {
            "points": tuple((float(at), int(size)) for at, size in told["points"]),
            "at_peak": tuple(Block(**block) for block in blocks),
        }
    )


def read_flame(told: Mapping[str, Any]) -> Flame:
    """The same of a tree."""
    return Flame(**dict(told) | {"children": tuple(read_flame(child) for child in told["children"])})
