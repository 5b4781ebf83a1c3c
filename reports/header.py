"""run.json, read with care: every key of it may be missing or of an unexpected kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mtbench.results import Run, machines_of

from .format import clean, clock_time, count, memory

__all__ = [
    "caveats",
    "elapsed",
    "facts",
    "flatten",
    "limits",
    "machine",
    "machine_words",
    "mapping",
    "planned",
    "sequence",
    "support",
    "when",
    "words_of",
]


class Headed(Protocol):
    """A run of any kind."""

    @property
    def header(self) -> Mapping[str, Any]:
        """Its run.json."""


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def planned(run: Run) -> list[str]:
    """The ids of the rows the run meant to measure."""
    return [str(row) for row in sequence(mapping(run.header.get("plan")).get("rows"))]


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def when(run: Headed) -> str:
    """When the run started, to the minute, in the zone it was written in."""
    started = run.header.get("started")
    moment = _moment(started)
    if moment is None:
        return clean(started or "at an unknown time", 40)
    zone = moment.strftime("%Z") or "local time"
    return f"{moment:%Y-%m-%d %H:%M} {zone}"


def elapsed(run: Headed) -> str:
    """How long the run took, or nothing where that is not known."""
    start, end = _moment(run.header.get("started")), _moment(run.header.get("finished"))
    if start is None or end is None or (start.tzinfo is None) != (end.tzinfo is None):
        return ""
    return clock_time((end - start).total_seconds())


def machine(run: Run) -> list[str]:
    """What it was measured on in a few words: of one machine the GPUs, the CPU, its cores, the memory, what
    was measured first; of several kinds how many, and then each."""
    parts = run.parts()
    if len(parts) == 1:
        return words_of(next(iter(parts.values())))
    told = [f"{clean(name, 60)}: {', '.join(words_of(part)[:2])}" for name, part in parts.items()]
    return [f"{len(parts)} kinds of machine", *told]


def words_of(part: Run) -> list[str]:
    """The same of one kind of machine."""
    return machine_words(part, used_gpu=any(row.case.device == "cuda" for row in part))


def machine_words(run: Headed, *, used_gpu: bool) -> list[str]:
    """The same of a run of any kind, on one machine."""
    environment = mapping(run.header.get("environment"))
    cpu = mapping(environment.get("cpu"))
    gpus = [str(mapping(gpu).get("name") or "GPU") for gpu in sequence(environment.get("gpus"))]
    cards = [f"{gpus.count(name)} × {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    told = cards if used_gpu else []
    cores = cpu.get("cores")
    used = cpu.get("affinity")
    told.append(str(cpu.get("model") or "an unnamed CPU"))
    if isinstance(cores, int):
        partly = isinstance(used, int) and used != cores
        told.append(count(cores, "core") + (f", {used} of them used" if partly else ""))
    if isinstance(size := environment.get("memory_bytes"), int):
        told.append(f"{memory(size)} of memory")
    return told if used_gpu else [*told, *(f"{card} (not used)" for card in cards)]


def flatten(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested data as lines of a key and a text; what is absent says so, and bytes are in units."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | list | tuple) for v in value):
        for number, inner in enumerate(value):
            yield from flatten(inner, f"{key}[{number}]")
    elif isinstance(value, list | tuple):
        yield key, ", ".join(map(str, value)) or "none"
    elif isinstance(value, bool) or value is None or value == {}:
        yield key, {True: "yes", False: "no"}.get(value, "none") if isinstance(value, bool) else "none"
    elif isinstance(value, int | float) and key.endswith("bytes"):
        yield key, f"{memory(value)} ({value:,})"
    else:
        yield key, str(value)


def facts(run: Headed) -> list[tuple[str, list[tuple[str, str]]]]:
    """The environment in tables: of each kind of machine the machine, the packages and each worker; then the
    run itself."""
    header = run.header
    told = {key: header.get(key) for key in ("mtbench", "started", "finished", "outcome")}
    # The rows have a table, and the workload is there to be read by a program.
    plan = {k: v for k, v in mapping(header.get("plan")).items() if k not in ("rows", "workload", "jobs")}
    command = " ".join(map(str, sequence(header.get("command"))))
    tables = [
        table for name, found in machines_of(run.header).items() for table in _machine_facts(name, found)
    ]
    told_of_it = {"command": command or None, **told}
    tables.append(("Run", [*flatten(told_of_it), *(flatten({"plan": plan}) if plan else ())]))
    return [(title, lines) for title, lines in tables if lines]


def _machine_facts(name: str, found: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    environment = dict(mapping(found.get("environment")))
    packages = environment.pop("packages", None)
    of = f" of {name}" if name else ""
    yield f"Machine{f' {name}' if name else ''}", list(flatten(environment)) if environment else []
    yield f"Packages{of}", list(flatten(packages)) if mapping(packages) else []
    for worker, versions in mapping(found.get("workers")).items():
        yield f"Worker {worker}{of}", list(flatten(versions)) if versions else []


def support(run: Run) -> list[dict[str, Any]]:
    """The backends as they declared themselves: forms by attention, and where they run."""
    return [
        {
            "backend": str(entry.get("backend") or "?"),
            "framework": str(entry.get("framework") or ""),
            "forms": {str(k): _joined(forms) for k, forms in mapping(entry.get("forms")).items()},
            "devices": [(str(device), why) for device, why in mapping(entry.get("unavailable")).items()],
        }
        for entry in map(mapping, sequence(run.header.get("support")))
    ]


def _joined(values: object) -> str:
    return ", ".join(map(str, sequence(values)))


def limits(run: Run) -> list[tuple[tuple[str, ...], list[str]]]:
    """The declared limits, each once, as kind, what and reason, and the backends that have it."""
    return _declared(run, "limits", ("kind", "what", "reason"))


def caveats(run: Run) -> list[tuple[tuple[str, ...], list[str]]]:
    """The declared caveats, each once, as what and reason, and the backends that have it. A run of an older
    mtbench has none."""
    return _declared(run, "caveats", ("what", "reason"))


def _declared(run: Run, what: str, parts: tuple[str, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for entry in map(mapping, sequence(run.header.get("support"))):
        for declaration in map(mapping, sequence(entry.get(what))):
            words = tuple(str(declaration.get(part) or "") for part in parts)
            found.setdefault(words, []).append(str(entry.get("backend") or "?"))
    return list(found.items())
