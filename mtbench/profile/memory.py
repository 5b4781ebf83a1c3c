"""Memory over the time of a call, from what a framework recorded (`mtbench.frameworks.profiling`), and the
resident set of the process, watched from a thread of its own."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbench.backend import Kernel
from mtbench.frameworks.profiling import CALL
from mtbench.measure.memory import returning_memory
from mtbench.profile.record import RESIDENT_METHOD, Block, MemoryCourse

__all__ = ["course", "planned", "resident_course"]

CPU_METHOD = "torch's CPU allocator, by its profiler"
CUDA_METHOD = "torch's caching allocator, by its own history"
JAX_METHOD = "what lives on JAX's device after the call"
PLAN_METHOD = "XLA's plan of the program's memory, block by block"
PLANNED = re.compile(r"^ *[\d.]+[KMG]?i?B\( *\d+%\); *([\d.]+)([KMG]?i?B); *\d+; *\d+; (.*)$", re.MULTILINE)
"""A line of the report: what all so far have, the size, the offset, how many arrays, and their shapes."""
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
MOST_SHAPES = 160
MOST_BLOCKS = 12
MOST_POINTS = 4000
STACK = 6
"""Frames that are kept of who asked for a block."""
OURS = ("mtbench/profile/", "mtbench/frameworks/", "torch/", "runpy.py", "<frozen")
"""Files whose frames tell nothing of the kernel."""
ALLOCATING = ("aten::empty", "aten::new_empty", "aten::resize_")
"""Operators that only allocate, for another."""
EVERY_S = 0.001
RESIDENT_CALLS, RESIDENT_S = 8, 1.5
"""Calls that are watched, and for how long at the most; one at the least."""


def course(told: Mapping[str, Any]) -> MemoryCourse | None:
    """The course that a framework recorded; None where it recorded nothing."""
    if "history" in told:
        return _of_history(told["history"])
    if "events" in told:
        return _of_events(told["events"])
    if "arrays" in told:
        return _of_arrays(told["arrays"])
    return None


def _of_history(history: Sequence[Mapping[str, Any]]) -> MemoryCourse | None:
    """Torch's ``device_traces``: a block is in use from ``alloc`` to ``free_requested``."""
    changes: list[tuple[float, int, int, Block]] = []
    began = next((event.get("time_us", 0) for event in history), 0)
    for event in history:
        if event["action"] not in ("alloc", "free_requested"):
            continue
        frames = [f for f in event.get("frames", ()) if not _ours(str(f.get("filename", "")))]
        stack = tuple(f"{f['name']} ({_short(str(f['filename']))}:{f['line']})" for f in frames[:STACK])
        sign = 1 if event["action"] == "alloc" else -1
        block = Block(bytes=int(event["size"]), what=stack[0] if stack else "", stack=stack)
        changes.append(((event.get("time_us", began) - began) / 1e3, sign, int(event["addr"]), block))
    return _course(CUDA_METHOD, changes)


def _of_events(events: Sequence[Mapping[str, Any]]) -> MemoryCourse | None:
    """Kineto's ``[memory]`` instants within the call; the operator and the functions around each."""
    (call,) = (event for event in events if event["name"] == CALL)
    begin, end = call["ts"], call["ts"] + call["dur"]
    spans = [e for e in events if e.get("ph") == "X" and e["ts"] <= end and e["ts"] + e["dur"] >= begin]
    changes: list[tuple[float, int, int, Block]] = []
    for event in events:
        if event["name"] != "[memory]" or not begin <= event["ts"] <= end:
            continue
        if event["args"].get("Device Type", 0) != 0:
            continue
        size = int(event["args"]["Bytes"])
        around = _around(spans, event) if size > 0 else []
        operators = [e for e in around if e.get("cat") == "cpu_op"]
        functions = [e["name"] for e in around if e.get("cat") == "python_function"]
        what = _asker(operators)
        stack = tuple(name for name in reversed(functions) if not _ours(name) and ".py(" in name)[:STACK]
        block = Block(bytes=abs(size), what=what, stack=stack)
        changes.append(
            ((event["ts"] - begin) / 1e3, 1 if size > 0 else -1, int(event["args"]["Addr"]), block)
        )
    return _course(CPU_METHOD, changes)


def _asker(operators: Sequence[Mapping[str, Any]]) -> str:
    """The innermost operator that does more than to allocate, with the shapes of its inputs."""
    told = [operator for operator in operators if not operator["name"].startswith(ALLOCATING)]
    if not told:
        return operators[-1]["name"] if operators else "no operator"
    dims = [d for d in told[-1].get("args", {}).get("Input Dims", []) if d and not isinstance(d[0], list)]
    shapes = ", ".join("x".join(map(str, d)) for d in dims)
    return f"{told[-1]['name']} of {shapes}" if shapes else str(told[-1]["name"])


def _around(spans: Iterable[Mapping[str, Any]], event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The spans of an instant's thread that it lies in, the outermost first."""
    at, thread = event["ts"], event["tid"]
    found = [s for s in spans if s["tid"] == thread and s["ts"] <= at <= s["ts"] + s["dur"]]
    return sorted(found, key=lambda span: (span["ts"], -span["dur"]))


def _course(method: str, changes: Sequence[tuple[float, int, int, Block]]) -> MemoryCourse | None:
    """From blocks that come (+1) and go (-1), by address. One that was there before the call and goes counts
    for nothing: what is said is beyond what was in use."""
    if not changes:
        return None
    began = changes[0][0]
    live: dict[int, Block] = {}
    used = peak = 0
    at_peak: list[Block] = []
    points = [(0.0, 0)]
    for moment, sign, address, block in changes:
        if sign > 0:
            live[address] = block
            used += block.bytes
        elif address in live:
            used -= live.pop(address).bytes
        else:
            continue
        points.append((moment - began, used))
        if used > peak:
            peak = used
            others = sorted((b for a, b in live.items() if a != address), key=lambda b: -b.bytes)
            at_peak = [block, *others[: MOST_BLOCKS - 1]]
    return MemoryCourse(method=method, points=_thinned(points), peak_bytes=peak, at_peak=tuple(at_peak))


def _of_arrays(arrays: Sequence[Mapping[str, Any]]) -> MemoryCourse:
    """No course: what is there at the end, inputs included."""
    blocks = sorted((Block(**array) for array in arrays), key=lambda block: -block.bytes)
    total = sum(block.bytes for block in blocks)
    return MemoryCourse(method=JAX_METHOD, points=(), peak_bytes=total, at_peak=tuple(blocks[:MOST_BLOCKS]))


def planned(report: str) -> MemoryCourse | None:
    """XLA's plan of a program's memory, of the report that it dumps: how large each block is that it sets
    aside, and which arrays lie in it one after another. Inputs and outputs are among them.

    >>> planned("  1.00MiB( 37%);    1.00MiB;      0;      5; 5×f32[8,4,64,64]").peak_bytes
    1048576
    """
    blocks = []
    for size, unit, shapes in PLANNED.findall(report):
        bytes_ = round(float(size) * UNITS[unit])
        if bytes_:
            told = shapes if len(shapes) <= MOST_SHAPES else f"{shapes[:MOST_SHAPES]}…"
            blocks.append(Block(bytes=bytes_, what=told.strip()))
    if not blocks:
        return None
    blocks.sort(key=lambda block: -block.bytes)
    total = sum(block.bytes for block in blocks)
    return MemoryCourse(method=PLAN_METHOD, points=(), peak_bytes=total, at_peak=tuple(blocks[:MOST_BLOCKS]))


def _ours(name: str) -> bool:
    return any(part in name for part in OURS)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _thinned(points: Sequence[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    """At most `MOST_POINTS`: of each stretch the highest, in order of time."""
    if len(points) <= MOST_POINTS:
        return tuple(points)
    step = -(-len(points) // MOST_POINTS)
    return tuple(
        max(points[at : at + step], key=lambda point: point[1]) for at in range(0, len(points), step)
    )


def resident_course(kernel: Kernel) -> MemoryCourse | None:
    """The resident set while some calls are made, beyond what it was before them; None where Linux does not
    say. What is freed goes back to the system at once, which slows them; small blocks are reused all the
    same. What lies between two looks is missed: the sweep's own peak is measured otherwise
    (`mtbench.measure.memory`)."""
    file = Path("/proc/self/statm")
    if not file.exists():
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    points: list[tuple[float, int]] = []
    done = threading.Event()
    began = time.perf_counter()

    def look() -> None:
        points.append(((time.perf_counter() - began) * 1e3, int(file.read_text().split()[1]) * page))

    def watch() -> None:
        while not done.wait(EVERY_S):
            look()

    with returning_memory():
        kernel.wait(kernel())
        began = time.perf_counter()
        look()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        for _ in range(RESIDENT_CALLS):
            kernel.wait(kernel())
            if time.perf_counter() - began > RESIDENT_S:
                break
        done.set()
        watcher.join()
        look()
    before = points[0][1]
    told = [(at, size - before) for at, size in points]
    return MemoryCourse(
        method=RESIDENT_METHOD, points=_thinned(told), peak_bytes=max(size for _, size in told)
    )
