"""Rows measured on this machine, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from mtbench.backend import Backend
from mtbench.errors import BadInput
from mtbench.measure.environment import cpus
from mtbench.results import Measurement
from mtbench.sweep.executor import Executor, Step, Told
from mtbench.sweep.machine import Machine, this_machine
from mtbench.sweep.settings import Settings
from mtbench.sweep.station import Station

__all__ = ["LocalExecutor"]

GIB = 1 << 30


class LocalExecutor(Executor):
    """See `mtbench.sweep.executor.Executor`."""

    plan: Mapping[str, Any] = {"executor": "local"}
    _workers: Station | None = None

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._told: Told | None = None

    def settle(self, settings: Settings) -> Settings:
        """All of it: there is one machine."""
        available = cpus()
        if settings.threads is not None and settings.threads > available:
            raise BadInput(f"--threads {settings.threads}: this process may use {available} CPUs")
        limit, memory = settings.memory_limit_bytes, psutil.virtual_memory().total
        if limit is not None and limit > memory:
            told = f"--memory-limit {limit / GIB:g}: this machine has {memory / GIB:.1f} GiB"
            raise BadInput(told)
        return replace(
            settings,
            threads=settings.threads or available,
            memory_limit_bytes=settings.memory_limit_here,
        )

    def machines(
        self,
        backends: Mapping[str, Backend],
        settings: Settings,
        recorded: Mapping[str, Machine],
        *,
        host: bool,
    ) -> dict[str, Machine]:
        """This one, without a name. Whether it is that of a run which is gone on with `check_same` says."""
        assert settings.threads is not None  # noqa: S101  (`settle`)
        self._settings = settings
        return {"": this_machine(backends, threads=settings.threads, host=host)}

    def open(self, logs: Path, told: Told) -> None:
        """See `Executor.open`."""
        assert self._settings is not None  # noqa: S101  (the order of calls)
        self._told = told
        self._workers = Station(self._settings, logs)

    def measure(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Measurement]]:
        """In the order given."""
        assert self._workers is not None  # noqa: S101
        assert self._told is not None  # noqa: S101
        for step in steps:
            yield step, step.row.decided or self._workers.measure(step, self._told)[0]
