"""The page of a profile, from its profile.json alone: one file that fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbench.errors import BadInput
from mtbench.floor import SAME_UNITS, floor_bytes
from mtbench.profile.against import telling_name
from mtbench.profile.record import (
    RESIDENT_METHOD,
    Kernel,
    Made,
    MemoryCourse,
    Operator,
    Profile,
    read_profile,
)
from mtbench.work import operations

from . import format as fmt
from .disk import write_whole
from .header import flatten
from .profile_drawing import (
    bytes_rate,
    flame_figure,
    flop_rate,
    memory_figure,
    pieces_figure,
    roofline_figure,
)
from .rendering import styles, template

__all__ = ["PAGE", "profile_html", "write_profile_page"]

PAGE = "profile.html"
MOST_LINES = 60
MOST_FILES = 60
NAME = 120
GUIDES: Mapping[str, str] = {
    "trace.json.gz": "ui.perfetto.dev or chrome://tracing",
    "flame.speedscope.json": "speedscope.app, which also comes as a file to keep",
    "memory-snapshot.pickle": "pytorch.org/memory_viz",
    "device-memory.prof.gz": "pprof",
}
"""What opens a file."""


def write_profile_page(place: Path) -> Path:
    """Make profile.html of a folder from its profile.json, or NAME.html of the file NAME.json, beside it.
    Returns its path.

    Raises:
        BadInput: there is no profile, or its file is called NAME.html itself.
        OSError: it cannot be written.
    """
    page = place.with_suffix(".html") if place.is_file() else place / PAGE
    if page == place:
        raise BadInput(f"{place}: the page would take its place: name another by --out")
    write_whole(page, profile_html(read_profile(place)).encode("utf-8", "replace"))
    return page


def profile_html(profile: Profile) -> str:
    """The page's text."""
    row, seen = profile.row, profile.traced
    courses = [course for course in profile.memory if course.points]
    kernels, operators = (seen.kernels, seen.operators) if seen else ((), ())
    return template("profile.html.j2").render(
        style=styles("report.css", "several.css", "profile.css"),
        profile=profile,
        row=row,
        case=row.case,
        bound=profile.bound,
        rates=_rates(profile),
        shares=_shares(profile),
        roofline=_roofline(profile),
        seen=seen,
        pieces=pieces_figure(seen.pieces, seen.wall_ms) if seen and seen.pieces else "",
        kernels=[_kernel(kernel, kernels) for kernel in kernels[:MOST_LINES]],
        counted=[name for name in COUNTED if any(name in kernel.counters for kernel in kernels)],
        counter_names=COUNTED,
        operators=[_operator(operator) for operator in operators[:MOST_LINES]],
        more=max(0, len(kernels or operators) - MOST_LINES),
        courses=[(course, memory_figure(course, _swept(profile, course))) for course in courses],
        blocks=[course for course in profile.memory if course.at_peak],
        flame=flame_figure(profile.flame) if profile.flame else "",
        counters=_counters(profile.counters),
        digest=_digest(profile.made),
        files=profile.made.files[:MOST_FILES],
        more_files=max(0, len(profile.made.files) - MOST_FILES),
        traces=[(name, GUIDES.get(name, "proton-viewer")) for name in profile.traces],
        facts=list(flatten(profile.environment)),
    )


COUNTER_UNITS: Mapping[str, str] = {"task-clock": "task-clock, ms"}
"""Of perf's events, which else are counts."""
COUNTED: Mapping[str, str] = {
    "dram_read_bytes": "read",
    "dram_written_bytes": "written",
    "memory_percent": "memory",
    "tensor_percent": "tensor",
    "fma_percent": "float",
    "occupancy_percent": "occupancy",
}
"""ncu's counters, as the table's heads have them."""


def _rates(profile: Profile) -> list[tuple[str, str, str, str]]:
    """What is done by definition and by this form, how fast, and at how much of a roof."""
    case, work, ms = profile.row.case, profile.work, profile.device_ms or profile.wall_ms
    copy = profile.machine.copy_bytes_per_s
    product = profile.machine.matmul_flop_per_s.get(SAME_UNITS.get(case.dtype, case.dtype))
    lines = []
    for name, amount, unit, roof, of in (
        ("operations, by definition", float(operations(case)), "FLOP", product, "a product"),
        (f"operations, by {work.flop_from}", work.flop, "FLOP", product, "a product"),
        ("bytes, by definition", float(floor_bytes(case)), "B", copy, "a copy"),
        (f"bytes, by {work.bytes_from}", work.bytes, "B", copy, "a copy"),
    ):
        rate = amount / ms * 1e3
        shown = fmt.memory(amount) if unit == "B" else f"{fmt.number(amount / 1e9)} GFLOP"
        rated = bytes_rate(rate) if unit == "B" else flop_rate(rate)
        share = "–" if not roof else f"{fmt.number(100 * rate / roof, 2)}% of {of}'s rate"
        if not name.endswith("the least"):
            lines.append((name, shown, rated, share))
    return lines


def _shares(profile: Profile) -> list[tuple[str, str, str]]:
    kernels = profile.traced.kernels if profile.traced else ()
    counted = any("tensor_percent" in kernel.counters for kernel in kernels)
    units = ", or in which its tensor or float units worked (ncu), whichever is more" if counted else ""
    names = {
        "busy": ("busy", "part of the call in which the device worked on it"),
        "dispatch": ("dispatch", "part of the call that launching so much costs at the least here"),
        "memory": ("memory", "part of the busy time that its bytes take at the rate of a copy"),
        "products": (
            "products",
            f"part of the busy time that its operations take at that of a product{units}",
        ),
    }
    found = profile.bound.shares
    return [
        (short, "–" if found.get(key) is None else f"{100 * (found[key] or 0):.3g}%", what)
        for key, (short, what) in names.items()
    ]


def _roofline(profile: Profile) -> Any:
    case, ms = profile.row.case, profile.device_ms or profile.wall_ms
    product = profile.machine.matmul_flop_per_s.get(SAME_UNITS.get(case.dtype, case.dtype))
    if not (product and profile.machine.copy_bytes_per_s):
        return ""
    least = float(operations(case)), float(floor_bytes(case))
    does = profile.work.flop, profile.work.bytes
    points = [("by definition", least[0] / least[1], least[0] / ms * 1e3)]
    if does != least:
        points.append(("what it does", does[0] / does[1], does[0] / ms * 1e3))
    return roofline_figure(profile, product, points)


def _kernel(kernel: Kernel, kernels: Sequence[Kernel]) -> dict[str, Any]:
    total = sum(one.ms for one in kernels) or 1.0
    told = {
        name: fmt.memory(value) if name.endswith("_bytes") else f"{value:.3g}%"
        for name, value in kernel.counters.items()
        if name in COUNTED
    }
    return {
        "name": fmt.clean(telling_name(kernel.name), NAME),
        "operator": "" if kernel.operator == kernel.name else fmt.clean(kernel.operator, 80),
        "calls": fmt.times(kernel.calls),
        "time": fmt.duration(kernel.ms),
        "share": f"{100 * kernel.ms / total:.1f}%",
        "grid": "×".join(map(str, kernel.grid)) or "–",
        "block": "×".join(map(str, kernel.block)) or "–",
        "registers": "–" if kernel.registers is None else kernel.registers,
        "shared": fmt.memory(kernel.shared_bytes),
        "spilled": fmt.memory(kernel.spilled_bytes),
        "counters": told,
    }


def _swept(profile: Profile, course: MemoryCourse) -> int | None:
    """The sweep's own peak, where it is of the memory whose course that is."""
    ours = course.method != RESIDENT_METHOD or profile.row.case.device == "cpu"
    return profile.row.peak_memory_bytes if ours else None


def _operator(operator: Operator) -> dict[str, str]:
    return {
        "name": fmt.clean(operator.name, NAME),
        "calls": fmt.times(operator.calls),
        "own": fmt.duration(operator.self_ms),
        "total": fmt.duration(operator.total_ms),
        "shapes": fmt.clean(operator.shapes, 120),
    }


def _counters(counters: Mapping[str, float]) -> list[tuple[str, str]]:
    lines = [(COUNTER_UNITS.get(name, name), fmt.number(value)) for name, value in counters.items()]
    if counters.get("cycles") and "instructions" in counters:
        lines.append(("instructions a cycle", fmt.number(counters["instructions"] / counters["cycles"])))
    if counters.get("cache-references") and "cache-misses" in counters:
        missed = counters["cache-misses"] / counters["cache-references"]
        lines.append(("cache references that missed", f"{100 * missed:.3g}%"))
    return lines


def _digest(made: Made) -> list[tuple[str, str]]:
    """A line a file: what is in it, what is not, and for what a GPU runs whether tensor cores are used."""
    lines = []
    for name, counts in made.digest.items():
        there = [f"{fmt.times(value)} {words}" for words, value in counts.items() if value]
        absent = [words for words, value in counts.items() if not value]
        told = ", ".join(there) or "nothing of what is looked for"
        lines.append((name, told + (f"; no {fmt.listing(absent, 'or')}" if absent else "")))
    return lines
