"""One side of a comparison: what was measured there, launch by launch, and on what.

A side is a run folder, a JSON file that pytest-benchmark wrote (one launch), or a folder of such files (a
launch each). mtbench's own ``pytest-benchmark.json`` has the rows under the names they have in the run
folder, and its launches, so either can stand against the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mtbench.errors import BadInput
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement, Run

__all__ = ["Side", "TimedRow", "read_side"]


@dataclass(frozen=True, kw_only=True)
class TimedRow:
    """A row of one side: how it ended and the medians of its launches."""

    id: str
    backend: str
    """Empty where nobody says."""
    status: str
    """`mtbench.results.STATUSES`; a benchmark in a pytest-benchmark file is ok."""
    reason: str = ""
    wall_ms: tuple[float, ...] = ()
    """The median of each launch; none where it may not be ranked."""
    device_ms: tuple[float, ...] = ()
    wall_samples: tuple[tuple[float, ...], ...] = ()
    """The samples of each launch, ms; none where nobody kept them."""
    device_samples: tuple[tuple[float, ...], ...] = ()
    device: str = ""
    """What it ran on, ``cpu`` or ``cuda``; empty where nobody says."""
    anywhere: str = ""
    """The id with the device left out: the same case on another device has the same."""

    def launches_ms(self, clock: str) -> tuple[float, ...]:
        """The median of each launch by that clock."""
        return self.device_ms if clock == "device" else self.wall_ms

    def samples(self, clock: str) -> tuple[tuple[float, ...], ...]:
        """The samples of each launch by that clock, ms."""
        return self.device_samples if clock == "device" else self.wall_samples


@dataclass(frozen=True, kw_only=True)
class Side:
    """What stands on one side."""

    path: Path
    rows: Mapping[str, TimedRow]
    machine: Mapping[str, str] = field(default_factory=dict)
    """What has to be the same on both sides, in words: the processor, its cores, GPUs, threads."""
    software: Mapping[str, str] = field(default_factory=dict)
    """What may differ, since that is what one compares: the commit, versions of packages."""
    remarks: tuple[str, ...] = ()
    """What a reader should know of it: an interrupted run, lines that could not be read."""
    commit: str = ""
    """Its first 12 digits, and whether there were changes beside it; empty where nobody says."""
    committed: datetime | None = None
    """When the commit was made."""
    started: datetime | None = None
    """When the run began; of pytest-benchmark's files, when the first was written."""
    parts: tuple[Side, ...] = ()
    """Of a run of several kinds of machine a side for each, whose cases have the names that a run of one
    machine has; its own have the machine in them, so that no two are ever taken for one. Else none."""

    @property
    def of_one_machine(self) -> tuple[Side, ...]:
        """Its parts, or itself."""
        return self.parts or (self,)


def read_side(path: Path | str) -> Side:
    """Read a run folder, a pytest-benchmark JSON file or a folder of them.

    Raises:
        BadInput: there is none of these, a file is damaged, or the files of a folder are of several commits
            or machines.
    """
    path = Path(path)
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise BadInput(f"{path} does not exist: give a run folder, or pytest-benchmark's JSON")
    if (path / "run.json").is_file():
        return _read_run(path)
    files = sorted(path.rglob("*.json"))
    if not files:
        raise BadInput(f"{path} holds neither a run (run.json) nor JSON files of pytest-benchmark")
    return _joined(path, [_read_file(file) for file in files])


def _read_run(path: Path) -> Side:
    run = Run.load(path)
    parts = [_read_part(path, part, name) for name, part in run.parts().items()]
    if len(parts) == 1:
        return parts[0]
    machine, software = (
        {
            f"{key} of {name}": text
            for name, part in zip(run.parts(), parts, strict=True)
            for key, text in getattr(part, what).items()
        }
        for what in ("machine", "software")
    )
    return replace(
        parts[0],
        rows={row.id: _timed(row, row.id) for row in run},
        machine=machine,
        software=software,
        parts=tuple(parts),
    )


def _read_part(path: Path, run: Run, name: str) -> Side:
    remarks = []
    if run.header.get("outcome") not in (None, "complete"):
        remarks.append(f"the run is not complete ({run.header['outcome']})")
    if run.unreadable_lines:
        remarks.append(f"{run.unreadable_lines} of its lines could not be read")
    environment = _mapping(run.header.get("environment"))
    git = _mapping(environment.get("git"))
    return Side(
        path=path,
        rows={row.unplaced_id: _timed(row, row.unplaced_id) for row in run},
        machine=({"kind": name} if name else {}) | _run_machine(environment),
        software=_run_software(run.header),
        remarks=tuple(remarks),
        commit=_commit(git.get("commit"), git.get("dirty")) or "",
        committed=_moment(git.get("committed")),
        started=_moment(run.header.get("started")),
    )


def _timed(row: Measurement, name: str) -> TimedRow:
    wall, device = (row.wall_ms, row.device_ms) if row.timed else (None, None)
    return TimedRow(
        id=name,
        backend=row.backend,
        status=row.status,
        reason=row.reason,
        wall_ms=() if wall is None else wall.launch_medians,
        device_ms=() if device is None else device.launch_medians,
        wall_samples=() if wall is None else wall.launches,
        device_samples=() if device is None else device.launches,
        device=row.case.device,
        anywhere=_anywhere(name, row.case.dtype, row.case.device),
    )


def _anywhere(name: str, dtype: object, device: object) -> str:
    """An id of `Case.id` without its device.

    >>> _anywhere("jax/xla/softmax-n64-float32-cuda-forward", "float32", "cuda")
    'jax/xla/softmax-n64-float32-forward'
    """
    return name.replace(f"-{dtype}-{device}-", f"-{dtype}-")


def _run_machine(environment: Mapping[str, Any]) -> dict[str, str]:
    cpu = _mapping(environment.get("cpu"))
    found = {
        "CPU": cpu.get("model"),
        "cores": cpu.get("cores"),
        "CPUs it may use": cpu.get("affinity"),
        "architecture": cpu.get("machine"),
        "threads": environment.get("threads"),
        "GPUs": None,
    }
    if isinstance(gpus := environment.get("gpus"), list):
        found["GPUs"] = ", ".join(str(_mapping(gpu).get("name")) for gpu in gpus) or "none"
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _run_software(header: Mapping[str, Any]) -> dict[str, str]:
    environment = _mapping(header.get("environment"))
    git = _mapping(environment.get("git"))
    found: dict[str, Any] = {
        "commit": _commit(git.get("commit"), git.get("dirty")),
        "mtbench": header.get("mtbench"),
        "python": environment.get("python"),
        "system": environment.get("os"),
        **_mapping(environment.get("packages")),
    }
    gpus = environment.get("gpus")
    if isinstance(gpus, list) and gpus:
        found["GPU driver"] = _mapping(gpus[0]).get("driver")
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _commit(commit: object, dirty: object) -> str | None:
    if not commit or commit == "unversioned":
        return None
    return f"{str(commit)[:12]}{' with changes' if dirty else ''}"


def _read_file(path: Path) -> Side:
    """pytest-benchmark's JSON, https://pytest-benchmark.readthedocs.io (its ``stats`` are in seconds)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not pytest-benchmark's JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("benchmarks"), list):
        raise BadInput(f"{path} is not pytest-benchmark's JSON: it has no list of benchmarks")
    rows: dict[str, TimedRow] = {}
    for benchmark in data["benchmarks"]:
        try:
            row = _benchmark(benchmark)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path}: a benchmark without a name or a median: {error!r}") from error
        if row.id in rows:
            raise BadInput(f"{path} has the benchmark {row.id} twice")
        rows[row.id] = row
    machine = _mapping(data.get("machine_info"))
    commit = _mapping(data.get("commit_info"))
    software = {
        "commit": _commit(commit.get("id"), commit.get("dirty")),
        "python": machine.get("python_version"),
        "system": machine.get("system"),
    }
    own = _mapping(machine.get("mtbench"))
    return Side(
        path=path,
        rows=rows,
        machine=_run_machine(own) if own else _file_machine(machine),
        software=(
            _run_software({"environment": own})
            if own
            else {name: str(value) for name, value in software.items() if value}
        ),
        commit=software["commit"] or "",
        committed=_moment(commit.get("time")),
        started=_moment(data.get("datetime")),
    )


def _benchmark(benchmark: Mapping[str, Any]) -> TimedRow:
    name = str(benchmark.get("fullname") or benchmark["name"])
    more = _mapping(benchmark.get("extra_info"))
    backend = str(more.get("backend") or "")
    sizes = more.get("launch_sizes")
    medians = _launch_medians(benchmark["stats"], sizes)
    if not all(median > 0 for median in medians):
        raise ValueError(f"{name}: a median of {min(medians)} s")
    # One test measured for several backends has one name in the file of each.
    qualified = name if not backend or name.startswith(f"{backend}/") else f"{backend}/{name}"
    data = [1000 * float(value) for value in benchmark["stats"].get("data") or ()]
    return TimedRow(
        id=qualified,
        backend=backend,
        status="ok",
        wall_ms=tuple(1000 * m for m in medians),
        wall_samples=Samples(data, sizes).launches if data else (),
        device=str(more.get("device") or ""),
        anywhere=_anywhere(qualified, more.get("dtype"), more.get("device")),
    )


def _launch_medians(stats: Mapping[str, Any], sizes: list[int] | None) -> tuple[float, ...]:
    """In seconds. A process is a launch: only mtbench's own file has more, and says how large each is."""
    if sizes is not None:
        return Samples(stats["data"], sizes).launch_medians
    return (float(stats["median"] if "median" in stats else np.median(stats["data"])),)


def _file_machine(machine: Mapping[str, Any]) -> dict[str, str]:
    """The node's name is left out: on rented machines it is new every time."""
    cpu = _mapping(machine.get("cpu"))
    found = {
        "CPU": cpu.get("brand_raw") or machine.get("processor"),
        "cores": cpu.get("count"),
        "architecture": machine.get("machine"),
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _joined(path: Path, files: list[Side]) -> Side:
    """The files of a folder as one side, a launch each."""
    first = files[0]
    rows: dict[str, TimedRow] = {}
    for file in files:
        for what, here, there in (
            ("machine", file.machine, first.machine),
            ("commit", file.software.get("commit"), first.software.get("commit")),
        ):
            if here != there:
                raise BadInput(
                    f"{path} holds files of more than one {what} ({first.path.name}, {file.path.name}): "
                    "put those of one in a folder of their own"
                )
        for row in file.rows.values():
            known = rows.get(row.id)
            rows[row.id] = row if known is None else _with_launch(known, row)
    started = [file.started for file in files if file.started is not None]
    return replace(first, path=path, rows=rows, started=min(started, default=None))


def _with_launch(row: TimedRow, later: TimedRow) -> TimedRow:
    return replace(
        row, wall_ms=row.wall_ms + later.wall_ms, wall_samples=row.wall_samples + later.wall_samples
    )


def _moment(value: object) -> datetime | None:
    """A date that a file says, in UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
