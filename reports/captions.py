"""What stands below a figure in a paper: what it shows, and all that its numbers depend on.

Plain text, a fact a line, so that nothing in it needs escaping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mtbench.results import Run

from . import header
from .figures import Figure
from .format import clean, count, listing
from .plan import AnyFigure
from .settings import CLOCK_NAMES, Clock, samples
from .sheets import Sheet

__all__ = ["caption", "hardware", "versions"]

FRAMEWORKS = ("torch", "triton", "jax")
LONGEST = 120
"""Characters of a text from the run that a caption shows."""
CLOCKS: Mapping[Clock, str] = {
    "wall": "the host's clock around a call and the framework's own wait",
    "device": "the union of the intervals in which the GPU worked on the call (CUPTI)",
}


def caption(figure: AnyFigure, run: Run, sheet: Sheet) -> str:
    """The caption of a figure as a sheet shows it: what is drawn, the clock, n (samples and launches), dtype,
    mode, hardware and versions."""
    context = figure.context
    part = run.parts()[context.hardware]
    intervals = {
        True: " The areas are the intervals; a line of one point has a bar.",
        False: " The bars are the intervals.",
    }
    drawn = figure.caption
    if isinstance(figure, Figure) and figure.quantity == "latency":
        drawn += intervals[sheet.bands and figure.axis is not None]
    guided = isinstance(figure, Figure) and figure.guides
    guides = " Grey guides grow as O(N), dotted, and O(N²), solid." if guided else ""
    lines = [
        f"{clean(figure.title)}.",
        f"{drawn}{guides} Panels: {listing([clean(panel.title, 40) for panel in figure.panels])}.",
        "",
        f"Clock: {_clock(figure)}.",
        f"n: {_n(figure)}.",
        f"dtype: {context.dtype}.",
        f"Mode: {context.mode.replace('_', ' + ')}, {'causal' if context.causal else 'not causal'}.",
        f"Hardware: {hardware(part)}.",
        f"Versions: {versions(part)}.",
        f"Measured: {header.when(run)}, with {clean(_command(run), 300)}.",
    ]
    return "\n".join(lines) + "\n"


def hardware(run: Run) -> str:
    """The GPUs, the CPU, its cores, the memory and the threads, of each kind of machine."""
    return _of_each(run, _hardware)


def _of_each(run: Run, told: Callable[[Run], str]) -> str:
    parts = run.parts()
    if len(parts) == 1:
        return told(next(iter(parts.values())))
    return "; ".join(f"{clean(name, 60)}: {told(part)}" for name, part in parts.items())


def _hardware(run: Run) -> str:
    environment = header.mapping(run.header.get("environment"))
    told = [clean(part, LONGEST) for part in header.words_of(run)]
    if isinstance(threads := environment.get("threads"), int):
        told.append(count(threads, "CPU thread"))
    return ", ".join(told)


def versions(run: Run) -> str:
    """Those of mtbench, Python, the frameworks and the GPU's driver, of each kind of machine; what is missing
    says so."""
    return _of_each(run, _versions)


def _versions(run: Run) -> str:
    environment = header.mapping(run.header.get("environment"))
    packages = header.mapping(environment.get("packages"))
    told = [f"mtbench {_known(run.header.get('mtbench'))}", f"Python {_known(environment.get('python'))}"]
    told += [
        f"{name} {clean(packages[name], 40)}" if packages.get(name) else f"no {name}" for name in FRAMEWORKS
    ]
    drivers = [header.mapping(gpu).get("driver") for gpu in header.sequence(environment.get("gpus"))]
    told += [f"NVIDIA driver {_known(driver)}" for driver in dict.fromkeys(map(_known, drivers))]
    return ", ".join(told if drivers else [*told, "no GPU driver"])


def _known(value: object) -> str:
    return clean(value, 40) if value else "of unknown version"


def _command(run: Run) -> str:
    return " ".join(map(str, header.sequence(run.header.get("command")))) or "an unknown command"


def _clock(figure: AnyFigure) -> str:
    if figure.clock is None:
        return "none, it is no time"
    caches = _each(row.cache for row in figure.rows)
    return f"{CLOCK_NAMES[figure.clock]}, {CLOCKS[figure.clock]}; cache: {caches or 'not recorded'}"


def _n(figure: AnyFigure) -> str:
    rows = figure.rows
    if figure.clock is not None:
        found = [taken for row in rows if (taken := samples(row, figure.clock)) is not None]
        launches = _range([len(taken.sizes) for taken in found], "launch", "launches")
        return f"{_range([len(taken.values) for taken in found], 'sample')} a point, in {launches}"
    if figure.quantity == "memory":
        # Of several launches a row keeps the first one's memory.
        return f"one reading a point, in its first launch ({_each(row.memory_method for row in rows)})"
    launches = _range([max(1, row.launches) for row in rows], "launch", "launches")
    whole = all(row.compared.startswith("all") for row in rows)
    compared = "all rows" if whole else _each(row.compared for row in rows)
    return f"the worst of {launches} a point, of {compared or 'an unknown number of rows'} of its arrays"


def _range(numbers: list[int], noun: str, nouns: str | None = None) -> str:
    low, high = min(numbers), max(numbers)
    return f"{f'{low} to {high}' if low != high else high} {noun if high == 1 else nouns or f'{noun}s'}"


def _each(texts: Iterable[str]) -> str:
    return "; ".join(sorted({clean(text, LONGEST) for text in texts if text}))
