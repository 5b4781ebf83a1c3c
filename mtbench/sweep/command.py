"""``mtbench run``, from checked words to a finished folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from mtbench.backend import Backend
from mtbench.display import show_progress
from mtbench.errors import BadInput
from mtbench.measure.environment import cpus, device_problem
from mtbench.registry import BUILTIN_BACKENDS, load_backend
from mtbench.results import FAILURES, STATUSES, Run, RunFolder
from mtbench.spec import DEVICES
from mtbench.sweep.plan import plan_rows
from mtbench.sweep.runner import Settings, SweepRunner
from mtbench.workloads import Workload

__all__ = ["Outcome", "run_sweep"]


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
    threads: int | None,
    timeout_s: float | None,
    memory_limit_gib: float | None,
    host: bool,
    arguments: list[str],
) -> Outcome:
    """Plan, check everything that can be checked, create the folder, and measure.

    Raises:
        BadInput: before anything is written.
    """
    loaded = _load(backends or tuple(BUILTIN_BACKENDS))
    rows = plan_rows(workload, loaded)
    for device in dict.fromkeys(row.case.device for row in rows):
        if problem := device_problem(device):
            there = [name for name in DEVICES if device_problem(name) is None]
            raise BadInput(f"device {device!r} is not there: {problem}; there is: {', '.join(there)}")
    for option, value in (("--timeout", timeout_s), ("--memory-limit", memory_limit_gib)):
        if value is not None and not value > 0:
            raise BadInput(f"{option} {value}: must be above 0")
    available = cpus()
    if threads is not None and threads > available:
        raise BadInput(f"--threads {threads}: this process may use {available} CPUs")
    free = psutil.virtual_memory().available
    settings = Settings(
        command=["mtbench", *_relative(arguments)],
        threads=threads or available,
        timeout_s=timeout_s or workload.timeout_s,
        host=host,
        memory_limit_bytes=int(memory_limit_gib * 2**30 if memory_limit_gib else 0.9 * free),
    )
    interrupted = False
    with RunFolder(folder) as run_folder, show_progress() as progress:
        runner = SweepRunner(run_folder, workload, rows, loaded, settings, progress)
        try:
            runner.run()
        except KeyboardInterrupt:
            interrupted = True
    counts = Counter[str](measurement.status for measurement in Run.load(folder))
    return Outcome(interrupted=interrupted, counts=dict(counts))


def _load(names: tuple[str, ...]) -> dict[str, Backend]:
    loaded: dict[str, Backend] = {}
    for name in names:
        backend = load_backend(name)
        if backend.name in {other.name for other in loaded.values()}:
            raise BadInput(f"two backends of this run are both named {backend.name!r}: rename one")
        loaded[name] = backend
    return loaded


def _relative(arguments: list[str]) -> list[str]:
    """Absolute paths made relative to here, or to their last part where they lie elsewhere: a run folder
    tells nobody's home."""
    return [_relative_path(word) if Path(word).is_absolute() else word for word in arguments]


def _relative_path(path: str) -> str:
    relative = os.path.relpath(path)
    return Path(path).name if relative.startswith(os.pardir) else relative
