"""``mtbench run``, from checked words to a finished folder."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mtbench.backend import Backend
from mtbench.display import show_progress
from mtbench.errors import BadInput
from mtbench.measure.environment import cpus, device_problem
from mtbench.registry import BUILTIN_BACKENDS, PEERS, load_backend
from mtbench.results import FAILURES, STATUSES
from mtbench.run_folder import RunFolder
from mtbench.spec import DEVICES
from mtbench.sweep.header import check_same, new_header, settings_from, workload_from
from mtbench.sweep.plan import PlannedRow, plan_rows
from mtbench.sweep.runner import Settings, SweepRunner
from mtbench.workloads import Workload

__all__ = ["Outcome", "relative", "resume_sweep", "run_sweep"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended."""

    interrupted: bool
    counts: dict[str, int]

    @property
    def failed(self) -> bool:
        """Some row is wrong, crash, timeout or error."""
        return any(self.counts.get(status) for status in FAILURES)

    @property
    def summary(self) -> str:
        """Rows by status, in one line."""
        parts = [f"{self.counts[s]} {s}" for s in STATUSES if self.counts.get(s)]
        return ("interrupted: " if self.interrupted else "") + (", ".join(parts) or "no row measured")


def run_sweep(
    workload: Workload,
    backends: tuple[str, ...] | None,
    folder: Path,
    *,
    threads: int | None = None,
    timeout_s: float | None = None,
    memory_limit_gib: float | None = None,
    host: bool = False,
    arguments: Sequence[str] = (),
    launches: int = 1,
    interleaved: bool = True,
) -> Outcome:
    """Plan, check everything that can be checked, create the folder, and measure.

    Args:
        workload: what to measure.
        backends: by name or file; None is the workload's, or mtbench's own without its peers.
        folder: a new one.
        threads: CPU threads of every backend; None is all CPUs.
        timeout_s: the most that one row may take; None is the workload's.
        memory_limit_gib: resident memory of a worker; None is nine tenths of what is free.
        host: whether to record the machine's name.
        arguments: the command line, for the record.
        launches: times that every row is measured, in a fresh process each time.
        interleaved: case by case, over all backends in a seeded order; else backend by backend.

    Raises:
        BadInput: before anything is written.
        StorageError: a row could not be written; those before it are whole.
    """
    own = tuple(name for name in BUILTIN_BACKENDS if name not in PEERS)
    loaded = _load(backends or workload.backends or own)
    rows = plan_rows(workload, loaded)
    _check_devices(rows)
    for option, value in (("--timeout", timeout_s), ("--memory-limit", memory_limit_gib)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise BadInput(f"{option} {value}: must be a finite number above 0")
    available = cpus()
    if threads is not None and threads > available:
        raise BadInput(f"--threads {threads}: this process may use {available} CPUs")
    memory = psutil.virtual_memory()
    if memory_limit_gib is not None and memory_limit_gib > (total := memory.total / 2**30):
        raise BadInput(f"--memory-limit {memory_limit_gib:g}: this machine has {total:.1f} GiB")
    settings = Settings(
        sampling=workload.sampling,
        threads=threads or available,
        timeout_s=timeout_s or workload.timeout_s,
        memory_limit_bytes=int(memory_limit_gib * 2**30 if memory_limit_gib else 0.9 * memory.available),
        launches=launches,
        interleaved=interleaved,
        seed=rows[0].case.seed,
    )
    header = new_header(["mtbench", *relative(arguments)], workload, rows, loaded, settings, host=host)
    with RunFolder.create(folder) as run_folder:
        return _measured(run_folder, header, rows, loaded, settings)


def resume_sweep(folder: Path) -> Outcome:
    """Go on with a run that was cut off, and measure what it lacks.

    Raises:
        BadInput: there is no run, another process is writing it, or the machine or the code has changed.
        StorageError: as `run_sweep`.
    """
    run_folder, run = RunFolder.resume(folder)
    with run_folder:
        workload, backends = workload_from(run.header)
        loaded = _load(backends)
        rows = plan_rows(workload, loaded)
        _check_devices(rows)
        settings = settings_from(run.header, workload)
        again = new_header(run.header["command"], workload, rows, loaded, settings, host=False)
        check_same(run.header, again)
        return _measured(run_folder, dict(run.header), rows, loaded, settings)


def _measured(
    folder: RunFolder,
    header: dict[str, Any],
    rows: Sequence[PlannedRow],
    backends: Mapping[str, Backend],
    settings: Settings,
) -> Outcome:
    interrupted = False
    with show_progress() as progress:
        try:
            SweepRunner(folder, header, rows, backends, settings, progress).run()
        except KeyboardInterrupt:
            interrupted = True
    counts = Counter[str](measurement.status for measurement in folder.rows.values())
    return Outcome(interrupted=interrupted, counts=dict(counts))


def _check_devices(rows: Sequence[PlannedRow]) -> None:
    for device in dict.fromkeys(row.case.device for row in rows):
        if problem := device_problem(device):
            there = [name for name in DEVICES if device_problem(name) is None]
            raise BadInput(f"device {device!r} is not there: {problem}; there is: {', '.join(there)}")


def _load(names: tuple[str, ...]) -> dict[str, Backend]:
    loaded: dict[str, Backend] = {}
    for name in names:
        backend = load_backend(name)
        if backend.name in {other.name for other in loaded.values()}:
            raise BadInput(f"two backends of this run are both named {backend.name!r}: rename one")
        loaded[name] = backend
    return loaded


def relative(arguments: Sequence[str]) -> list[str]:
    """Absolute paths made relative to here, or to their last part where they lie elsewhere: a run folder
    tells nobody's home."""
    return [_relative_path(word) if Path(word).is_absolute() else word for word in arguments]


def _relative_path(path: str) -> str:
    relative = os.path.relpath(path)
    return Path(path).name if relative.startswith(os.pardir) else relative
