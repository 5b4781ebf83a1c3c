"""``mtbench run``, from checked words to a finished folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mtbench.backend import Backend
from mtbench.display import show_progress
from mtbench.errors import BadInput
from mtbench.measure.environment import cpus
from mtbench.registry import BUILTIN_BACKENDS, PEERS, SPREAD, load_backend
from mtbench.results import FAILURES, STATUSES
from mtbench.run_folder import RunFolder
from mtbench.sweep.executor import Executor, Unfinished
from mtbench.sweep.executors import new_executor
from mtbench.sweep.header import (
    check_same,
    executor_from,
    machines_from,
    new_header,
    settings_from,
    workload_from,
)
from mtbench.sweep.plan import PlannedRow, place_rows, plan_rows
from mtbench.sweep.runner import SweepRunner
from mtbench.sweep.settings import Settings
from mtbench.words import check_above_0
from mtbench.workloads import Workload

__all__ = ["Outcome", "relative", "resume_sweep", "run_sweep"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended."""

    interrupted: bool
    counts: dict[str, int]
    unfinished: str = ""
    """Why some rows could not be measured, in one line."""

    @property
    def failed(self) -> bool:
        """Some row is wrong, crash, timeout or error, or could not be measured."""
        return bool(self.unfinished) or any(self.counts.get(status) for status in FAILURES)

    @property
    def summary(self) -> str:
        """Rows by status, in one line."""
        parts = [f"{self.counts[s]} {s}" for s in STATUSES if self.counts.get(s)]
        told = ("interrupted: " if self.interrupted else "") + (", ".join(parts) or "no row measured")
        return f"{told}\nunfinished: {self.unfinished}" if self.unfinished else told


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
    executor: Executor | None = None,
) -> Outcome:
    """Plan, check everything that can be checked, create the folder, and measure.

    Args:
        workload: what to measure.
        backends: by name or file; None is the workload's, or mtbench's own without its peers: those over
            several devices where some case has them, else the others.
        folder: a new one.
        threads: CPU threads of every backend, on each of its devices; None is all CPUs, shared among them.
        timeout_s: the most that one row may take; None is the workload's.
        memory_limit_gib: resident memory of a worker; None is nine tenths of what is free.
        host: whether to record the machine's name.
        arguments: the command line, for the record.
        launches: times that every row is measured, in a fresh process each time.
        interleaved: case by case, over all backends in a seeded order; else backend by backend.
        executor: where; None is this machine.

    Raises:
        BadInput: before anything is written.
        StorageError: a row could not be written; those before it are whole.
    """
    ranks = max(size for grid in workload.grids for size in grid.world_size)
    own = tuple(name for name in BUILTIN_BACKENDS if name not in PEERS and (name in SPREAD) == (ranks > 1))
    loaded = _load(backends or workload.backends or own)
    rows = plan_rows(workload, loaded)
    for option, value in (("--timeout", timeout_s), ("--memory-limit", memory_limit_gib)):
        check_above_0(option, value)
    limit = None if memory_limit_gib is None else int(Fraction(memory_limit_gib) * 2**30)
    executor = executor or new_executor("local")
    if threads is None and ranks > 1:
        threads = max(1, cpus() // ranks)  # as many for one device as for each of several
    settings = executor.settle(
        Settings(
            sampling=workload.sampling,
            threads=threads,
            timeout_s=timeout_s or workload.timeout_s,
            memory_limit_bytes=limit,
            launches=launches,
            interleaved=interleaved,
            seed=rows[0].case.seed,
        )
    )
    try:
        machines = executor.machines(loaded, settings, {}, host=host)
        rows = place_rows(rows, machines)
        command = ["mtbench", *relative(arguments)]
        header = new_header(command, workload, rows, loaded, settings, machines, executor)
        with RunFolder.create(folder) as run_folder:
            return _measured(run_folder, header, rows, loaded, settings, executor)
    finally:
        executor.close(kill=True)


def resume_sweep(folder: Path, *, address: str | None = None) -> Outcome:
    """Go on with a run that was cut off, and measure what it lacks.

    Args:
        folder: the run's.
        address: of the Ray cluster, which may be another one by now.

    Raises:
        BadInput: there is no run, another process is writing it, or the machine or the code has changed.
        StorageError: as `run_sweep`.
    """
    run_folder, run = RunFolder.resume(folder)
    with run_folder:
        workload, backends = workload_from(run.header)
        loaded = _load(backends)
        settings = settings_from(run.header, workload)
        executor = executor_from(run.header, address)
        try:
            recorded = machines_from(run.header)
            # What is planned is the recorded machines', whichever of them are there now.
            machines = executor.machines(loaded, settings, recorded, host=False) | recorded
            rows = place_rows(plan_rows(workload, loaded), machines)
            again = new_header(run.header["command"], workload, rows, loaded, settings, machines, executor)
            check_same(run.header, again)
            return _measured(run_folder, dict(run.header), rows, loaded, settings, executor)
        finally:
            executor.close(kill=True)


def _measured(
    folder: RunFolder,
    header: dict[str, Any],
    rows: Sequence[PlannedRow],
    backends: Mapping[str, Backend],
    settings: Settings,
    executor: Executor,
) -> Outcome:
    interrupted, unfinished = False, ""
    with show_progress() as progress:
        try:
            SweepRunner(folder, header, rows, backends, settings, executor, progress).run()
        except KeyboardInterrupt:
            interrupted = True
        except Unfinished as end:
            unfinished = f"{end}; `mtbench run --resume {folder.folder}` goes on with it"
    counts = Counter[str](measurement.status for measurement in folder.rows.values())
    return Outcome(interrupted=interrupted, counts=dict(counts), unfinished=unfinished)


def _load(names: tuple[str, ...]) -> dict[str, Backend]:
    loaded: dict[str, Backend] = {}
    for name in names:
        backend = load_backend(name)
        if backend.name in {other.name for other in loaded.values()}:
            raise BadInput(f"two backends of this run are both named {backend.name!r}: rename one")
        loaded[name] = backend
    return loaded


def relative(arguments: Sequence[str]) -> list[str]:
    """Absolute paths made relative to here, or to their last part where they lie elsewhere, and no address: a
    run folder tells nobody's home."""
    told: list[str] = []
    for word in arguments:
        if told and told[-1] == "--address":
            told.append("HOST:PORT")
        elif word.startswith("--address="):
            told.append("--address=HOST:PORT")
        else:
            told.append(_relative_path(word) if Path(word).is_absolute() else word)
    return told


def _relative_path(path: str) -> str:
    relative = os.path.relpath(path)
    return Path(path).name if relative.startswith(os.pardir) else relative
