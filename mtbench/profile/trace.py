"""Chrome's trace format, as torch (kineto) and JAX (XPlane's trace.json.gz) write it, read to the kernels,
the operators and the gaps of the calls that were traced.

A call is bracketed on the host by an annotation called `CALL`, begins on an idle device and is waited for. So
what belongs to it lies within the annotation's time, whichever thread or stream it ran on; `SLACK_US` is how
far the device's clock may be off the host's, and `mtbench.frameworks` leaves twice as much idle time around
every call.
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtbench.frameworks.profiling import CALL
from mtbench.measure.clocks import union_ns
from mtbench.profile.record import Kernel, Operator, Piece, Traced

__all__ = ["SLACK_US", "Event", "Trace", "read_trace", "traced"]

SLACK_US = 100.0
MOST_PIECES = 500
"""Drawn of one call, the longest."""
DEVICE_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
DETAILS = re.compile(r"(\w+):([\d.,]+)")
"""XLA's text of a launch: ``regs:32 static_shared:0 dynamic_shared:64 grid:8,1,1 block:128,1,1
occ_pct:50``."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something with a start and a length, in microseconds."""

    name: str
    lane: str
    start: float
    length: float
    args: Mapping[str, Any]

    @property
    def end(self) -> float:
        """Its last moment."""
        return self.start + self.length


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A trace file, sorted into what it has."""

    calls: tuple[Event, ...]
    device: tuple[Event, ...]
    """What the GPU did."""
    operators: tuple[Event, ...]
    """Of torch on the host, or of an XLA program on a CPU."""
    launches: Mapping[object, Event]
    """By correlation, the operator or the call of the driver that launched something."""


def read_trace(file: Path) -> Trace:
    """A trace, gzipped or not.

    Raises:
        ValueError: it is no trace, or has no call.
    """
    data = file.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    # A kernel's name may be cut in the middle of a letter, and hold what JSON does not allow.
    told = json.loads(text.decode(errors="replace"), strict=False)
    events = [e for e in told["traceEvents"] if isinstance(e, dict)]
    processes, threads = _names(events)
    sorted_: dict[str, list[Event]] = {"call": [], "device": [], "operator": [], "launch": []}
    for found in events:
        if found.get("ph") != "X":
            continue
        process = processes.get(found.get("pid"), "")
        thread = threads.get((found.get("pid"), found.get("tid")), str(found.get("tid", "")))
        kind = _kind(found, process, thread)
        if kind:
            sorted_[kind].append(
                Event(
                    name=str(found.get("name", "")),
                    lane=thread,
                    start=float(found["ts"]),
                    length=float(found.get("dur", 0.0)),
                    args=found.get("args") or {},
                )
            )
    calls = sorted(sorted_["call"], key=lambda event: event.start)
    if not calls:
        raise ValueError(f"{file.name} has no call that was traced")
    return Trace(
        calls=tuple(calls),
        device=tuple(sorted(sorted_["device"], key=lambda event: event.start)),
        operators=tuple(sorted(sorted_["operator"], key=lambda event: (event.start, -event.length))),
        launches={e.args["correlation"]: e for e in sorted_["launch"] if "correlation" in e.args},
    )


def _names(events: Iterable[Mapping[str, Any]]) -> tuple[dict[Any, str], dict[Any, str]]:
    processes: dict[Any, str] = {}
    threads: dict[Any, str] = {}
    for found in events:
        if found.get("ph") == "M":
            name = str((found.get("args") or {}).get("name", ""))
            if found.get("name") == "process_name":
                processes[found.get("pid")] = name
            elif found.get("name") == "thread_name":
                threads[found.get("pid"), found.get("tid")] = name
    return processes, threads


def _kind(found: Mapping[str, Any], process: str, thread: str) -> str:
    """What an event is to us; empty for the rest. kineto says it by category; XLA, which has none, by the
    process of a GPU with a line a stream, and by the instruction of a program among the arguments."""
    category, name = found.get("cat"), found.get("name", "")
    if category is not None:
        if name == CALL:
            return "call" if category == "user_annotation" else ""
        if category in DEVICE_CATEGORIES:
            return "device"
        return {"cpu_op": "operator", "cuda_runtime": "launch", "cuda_driver": "launch"}.get(category, "")
    if "GPU" in process:  # annotations may stand on lines of its own, too
        return "device" if "Stream" in thread else ""
    if name == CALL:
        return "call"
    return "operator" if "hlo_op" in (found.get("args") or {}) else ""


def traced(trace: Trace, *, device: str) -> Traced:
    """The calls of a trace as one.

    Raises:
        ValueError: on a GPU, a call without a kernel: the profiler lost them.
    """
    within = _within(trace.device if device == "cuda" else trace.operators, trace.calls)
    if device == "cuda" and not all(within):
        raise ValueError("the profiler recorded no kernel for a call that ran on the GPU")
    spans = [_spans(call, inside) for call, inside in zip(trace.calls, within, strict=True)]
    order = sorted(range(len(trace.calls)), key=lambda at: trace.calls[at].length)
    middle = order[len(order) // 2]
    hosts = _within(trace.operators, trace.calls)
    operators = _operators(hosts)
    leaves = sum(len(_leaves(inside)) for inside in hosts) / len(hosts)
    every = sum(map(len, within)) / len(within)
    return Traced(
        calls=len(trace.calls),
        wall_ms=statistics.median(call.length for call in trace.calls) / 1e3,
        busy_ms=statistics.median(span[0] for span in spans),
        before_ms=statistics.median(span[1] for span in spans),
        between_ms=statistics.median(span[2] for span in spans),
        after_ms=statistics.median(span[3] for span in spans),
        launches=every if device == "cuda" else leaves,
        kernels=_kernels(within, trace) if device == "cuda" else (),
        operators=operators,
        pieces=_pieces(trace.calls[middle], within[middle]),
    )


def _within(events: Sequence[Event], calls: Sequence[Event]) -> list[list[Event]]:
    """The events of each call. Both are in order of time."""
    found: list[list[Event]] = [[] for _ in calls]
    at = 0
    for event in events:
        while at < len(calls) and event.start > calls[at].end + SLACK_US:
            at += 1
        if at == len(calls):
            break
        if event.end >= calls[at].start - SLACK_US:
            found[at].append(event)
    return found


def _spans(call: Event, inside: Sequence[Event]) -> tuple[float, float, float, float]:
    """Milliseconds: busy, before the first, between, after the last."""
    if not inside:
        return 0.0, call.length / 1e3, 0.0, 0.0
    first, last = min(e.start for e in inside), max(e.end for e in inside)
    busy = union_ns((round(e.start * 1e3), round(e.end * 1e3)) for e in inside)
    between = round(last * 1e3) - round(first * 1e3) - busy  # in whole ns: what is left of floats is no gap
    return busy / 1e6, (first - call.start) / 1e3, between / 1e6, (call.end - last) / 1e3


def _kernels(within: Sequence[Sequence[Event]], trace: Trace) -> tuple[Kernel, ...]:
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in (event for inside in within for event in inside):
        groups[event.name].append(event)
    n = len(within)
    kernels = []
    for name, events in groups.items():
        longest = max(events, key=lambda event: event.length)
        kernels.append(
            Kernel(
                name=name,
                calls=len(events) / n,
                ms=sum(event.length for event in events) / n / 1e3,
                operator=_launched_by(longest, trace),
                **_launch(longest.args),
            )
        )
    return tuple(sorted(kernels, key=lambda kernel: -kernel.ms))


def _launch(args: Mapping[str, Any]) -> dict[str, Any]:
    """Grid, block, registers and shared memory, in kineto's words or XLA's."""
    if "kernel_details" in args:
        told = dict(DETAILS.findall(str(args["kernel_details"])))
        shared = [int(told[key]) for key in ("static_shared", "dynamic_shared") if key in told]
        return {
            "grid": _sizes(told.get("grid", "")),
            "block": _sizes(told.get("block", "")),
            "registers": int(told["regs"]) if "regs" in told else None,
            "shared_bytes": sum(shared) if shared else None,
        }
    return {
        "grid": tuple(args.get("grid", ())),
        "block": tuple(args.get("block", ())),
        "registers": args.get("registers per thread"),
        "shared_bytes": args.get("shared memory"),
    }


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _launched_by(event: Event, trace: Trace) -> str:
    if "hlo_op" in event.args:
        return str(event.args["hlo_op"])
    launch = trace.launches.get(event.args.get("correlation"))
    if launch is None:
        return ""
    # The innermost operator on the launch's own thread at that moment.
    around = [op for op in trace.operators if op.lane == launch.lane and op.start <= launch.start <= op.end]
    return around[-1].name if around else ""


def _operators(within: Sequence[Sequence[Event]]) -> tuple[Operator, ...]:
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    longest: dict[str, Event] = {}
    for inside in within:
        for event, own in _self_times(inside):
            counts = totals[event.name]
            counts[0] += 1
            counts[1] += own
            counts[2] += event.length
            if event.name not in longest or event.length > longest[event.name].length:
                longest[event.name] = event
    n = len(within)
    found = [
        Operator(
            name=name,
            calls=calls / n,
            self_ms=own / n / 1e3,
            total_ms=total / n / 1e3,
            shapes=_shapes(longest[name].args),
        )
        for name, (calls, own, total) in totals.items()
    ]
    return tuple(sorted(found, key=lambda operator: -operator.self_ms))


def _self_times(events: Sequence[Event]) -> list[tuple[Event, float]]:
    """Each with its time less that of the events right inside it, thread by thread."""
    own = {id(event): event.length for event in events}
    for event, parent in _parents(events):
        if parent is not None:
            own[id(parent)] -= event.length
    return [(event, max(0.0, own[id(event)])) for event in events]


def _leaves(events: Sequence[Event]) -> list[Event]:
    """Those that no other lies in."""
    parents = {id(parent) for _, parent in _parents(events) if parent is not None}
    return [event for event in events if id(event) not in parents]


def _parents(events: Sequence[Event]) -> list[tuple[Event, Event | None]]:
    found: list[tuple[Event, Event | None]] = []
    stacks: dict[str, list[Event]] = defaultdict(list)
    for event in events:  # by start, the longer one of two first
        stack = stacks[event.lane]
        while stack and event.start >= stack[-1].end:
            stack.pop()
        found.append((event, stack[-1] if stack else None))
        stack.append(event)
    return found


def _shapes(args: Mapping[str, Any]) -> str:
    dims = args.get("Input Dims")
    if not isinstance(dims, list):
        return ""
    return ", ".join("x".join(map(str, shape)) for shape in dims if shape and not isinstance(shape[0], list))


def _pieces(call: Event, inside: Sequence[Event]) -> tuple[Piece, ...]:
    kept = sorted(sorted(inside, key=lambda e: -e.length)[:MOST_PIECES], key=lambda e: e.start)
    return tuple(
        Piece(
            lane=_lane(event),
            name=event.name,
            start_ms=(event.start - call.start) / 1e3,
            ms=event.length / 1e3,
        )
        for event in kept
    )


def _lane(event: Event) -> str:
    return f"stream {event.args['stream']}" if "stream" in event.args else event.lane
