"""The case as a sweep measures it, before any profiler: its clocks, its peak memory, and whether it is
right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtbench.measure.clocks import Sampling
from mtbench.profile.target import Target
from mtbench.results import Measurement
from mtbench.sweep.executor import Step, Told
from mtbench.sweep.local import LocalExecutor
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.settings import Settings
from mtbench.sweep.station import NO_CEILINGS, Station

__all__ = ["measure", "settings_of"]

TIMEOUT_S = 300.0


def settings_of(threads: int | None) -> Settings:
    """Those of a sweep of one row on this machine.

    Raises:
        BadInput: there are not so many CPUs.
    """
    return LocalExecutor().settle(
        Settings(sampling=Sampling(), threads=threads, timeout_s=TIMEOUT_S, memory_limit_bytes=None)
    )


def measure(target: Target, settings: Settings, logs: Path, tell: Callable[[str], None]) -> Measurement:
    """One row, by the sweep's own workers, which are gone afterwards."""
    row = PlannedRow(case=target.case, asked=target.asked, backend=target.backend.name, form=target.form)
    # Ceilings of its own it need not measure: a profile has the machine's.
    step = Step(index=0, row=row, framework=target.backend.framework, ceilings=NO_CEILINGS)
    told = Told(
        stage=lambda _, stage: tell(stage),
        worker=lambda _, says: None,
        joined=lambda _, node: None,
        note=tell,
    )
    station = Station(settings, logs)
    try:
        return station.measure(step, told)[0]
    finally:
        station.close(kill=True)
