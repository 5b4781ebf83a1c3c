"""A profile on the terminal: one screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from mtbench.profile.against import Against, Line, telling_name
from mtbench.profile.record import Kernel, Operator, Profile
from mtbench.tables import table

__all__ = ["print_against", "print_profile", "show_stages"]

MOST_LINES = 10
NAME = 60
KERNELS = ("kernel", "calls", "ms", "share", "grid", "block", "regs", "shared", "spills")
OPERATORS = ("operator", "calls", "self ms", "total ms", "inputs")


@contextlib.contextmanager
def show_stages() -> Iterator[Callable[[str], None]]:
    """A line that says what is done now, on a terminal; nothing elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("profiling") as status:
        yield lambda text: status.update(f"profiling: {text}")


def print_profile(profile: Profile) -> None:
    """The verdict, the rates and the roof, the longest kernels or operators, memory, and what is missing."""
    console = Console(highlight=False)
    row, bound = profile.row, profile.bound
    console.print(Text(f"{row.backend} {row.form}  {row.case.id}"), style="dim", soft_wrap=True)
    console.print(Text.assemble((bound.verdict, "bold"), f": {bound.because}"))
    console.print(Text(f"to change it: {bound.change}"))
    console.print(Text(rates(profile)))
    for remark in profile.remarks:
        console.print(Text(remark), style="yellow")
    _print_lines(console, profile)
    for course in profile.memory:
        if course.at_peak:
            what = course.at_peak[0].what or "something that nobody names"
            told = f"memory: {_size(course.peak_bytes)} at the peak, set by {what}"
            console.print(Text(f"{told} ({course.method})"))
    for part, why in profile.missing.items():
        console.print(Text(f"no {part}: {why}"), style="dim")


def rates(profile: Profile) -> str:
    """Times, rates and the part of the roof that they are, in one line."""
    work = profile.work
    ms = profile.device_ms or profile.wall_ms
    told = f"wall {profile.wall_ms:.4g} ms"
    if profile.device_ms is not None:
        told += f", device {profile.device_ms:.4g} ms"
    flops = work.flop / ms / 1e6  # GFLOP/s
    told += f"; {flops / 1e3:.3g} TFLOP/s" if flops > 1e3 else f"; {flops:.3g} GFLOP/s"
    told += f", {work.bytes / ms / 1e6:.3g} GB/s"
    if profile.least_ms is not None:
        told += f"; {profile.least_ms / ms:.0%} of the roofline of what it does"
    return told


def _print_lines(console: Console, profile: Profile) -> None:
    seen = profile.traced
    if seen is None:
        return
    if seen.kernels:
        _print_table(console, KERNELS, [_kernel(one, seen.kernels) for one in seen.kernels[:MOST_LINES]])
    else:
        _print_table(console, OPERATORS, [_operator(one) for one in seen.operators[:MOST_LINES]], [0, 4])
    what, lines = ("kernels", seen.kernels) if seen.kernels else ("operators", seen.operators)
    if len(lines) > MOST_LINES:
        console.print(Text(f"and {len(lines) - MOST_LINES} more {what}"), style="dim")
    if seen.kernels:
        gaps = f"{seen.before_ms:.3g} ms before the first kernel, {seen.between_ms:.3g} between, "
        console.print(Text(f"host: {gaps}{seen.after_ms:.3g} after the last"))


def print_against(beside: Against, a: str, b: str) -> None:
    """What differs, and the lines with the largest differences."""
    console = Console(highlight=False)
    for name, one, other in beside.differs:
        console.print(Text(f"{name}: {one or '-'} | {other or '-'}"), style="dim", soft_wrap=True)
    for label, side in ((a, beside.a), (b, beside.b)):
        console.print(Text(f"{label}: {side.bound.verdict}; {rates(side)}"))
    headings = (beside.what or "part", "A ms", "B ms", "B - A ms", "calls")
    rows = [
        (_short(line.name), _ms(line.a_ms), _ms(line.b_ms), f"{line.more_ms:+.4g}", _calls(line))
        for line in (*beside.lines[:MOST_LINES], *beside.gaps)
    ]
    _print_table(console, headings, rows)
    if not beside.what:
        console.print(Text("one of the two has no kernels and no operators to align"), style="yellow")


def _print_table(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[int] = (0,)
) -> None:
    figures = [index for index in range(len(headings)) if index not in names]
    console.print(table(console, headings, [(cells, "") for cells in rows], folded=names, right=figures))


def _kernel(kernel: Kernel, kernels: Sequence[Kernel]) -> tuple[str, ...]:
    share = kernel.ms / sum(one.ms for one in kernels)
    sizes = (kernel.registers, kernel.shared_bytes, kernel.spilled_bytes)
    return (
        _short(kernel.name),
        f"{kernel.calls:g}",
        f"{kernel.ms:.4g}",
        f"{share:.0%}",
        "x".join(map(str, kernel.grid)),
        "x".join(map(str, kernel.block)),
        *("" if size is None else str(size) for size in sizes),
    )


def _operator(one: Operator) -> tuple[str, ...]:
    return _short(one.name), f"{one.calls:g}", _ms(one.self_ms), _ms(one.total_ms), one.shapes


def _ms(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.4g}"


def _calls(line: Line) -> str:
    return f"{line.a_calls:g} | {line.b_calls:g}"


def _short(name: str) -> str:
    told = telling_name(name)
    return told if len(told) <= NAME else f"{told[: NAME - 1]}…"


def _size(size: int) -> str:
    return f"{size / 2**20:.4g} MiB"
