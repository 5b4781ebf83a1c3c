"""Where rows are measured: the interface that the runner sees.

An executor first says which kinds of machine it has; then it is given the rows of a launch, each for one of
those kinds, and gives back each as it is done, in any order. What becomes of a row, and the folder, are the
runner's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mtbench.backend import Backend
from mtbench.results import Measurement
from mtbench.sweep.machine import Machine
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.settings import Settings

__all__ = ["Executor", "Step", "Told", "Unfinished"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A row, to be measured once."""

    index: int
    """Its place among all steps of the run."""
    row: PlannedRow
    framework: str
    known: bool = False
    """Whether an earlier launch has read its peak memory."""
    ceilings: Mapping[str, Any] = field(default_factory=dict)
    """What the run knows already of its machine's ceilings by this backend."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an executor tells while it measures."""

    stage: Callable[[Step, str], None]
    """A step is at a stage."""
    worker: Callable[[Step, Mapping[str, Any]], None]
    """A worker was started for a step, and says this of itself."""
    joined: Callable[[str, Mapping[str, Any]], None]
    """One more node of a kind of machine measures from now on."""
    note: Callable[[str], None]
    """What a user should know of the machines, in one line."""


class Unfinished(Exception):
    """Some steps cannot be measured, as what they need is gone; all others are done. One line."""


class Workers(Protocol):
    """What an executor has at work."""

    def renew(self) -> None:
        """End their processes, and go on with fresh ones."""

    def close(self, *, kill: bool) -> None:
        """End them, and measure no more."""


class Executor(ABC):
    """One run's. `settle` and `machines` come first, `open` before anything is measured."""

    plan: Mapping[str, Any]
    """What run.json's plan says of it: ``executor``, its name, and how it chooses machines."""
    _workers: Workers | None = None

    @abstractmethod
    def settle(self, settings: Settings) -> Settings:
        """The settings, with what is the same for all its machines decided.

        Raises:
            BadInput: no machine of it could do so.
        """

    @abstractmethod
    def machines(
        self,
        backends: Mapping[str, Backend],
        settings: Settings,
        recorded: Mapping[str, Machine],
        *,
        host: bool,
    ) -> dict[str, Machine]:
        """The kinds of machine that are there, by name; where there is one alone it has none.

        Args:
            backends: by the names they were asked for.
            settings: how rows will be measured.
            recorded: the kinds of a run that is gone on with, which keep their names; none: a new run.
            host: whether machines' own names may be recorded.

        Raises:
            BadInput: there is none that can be used.
        """

    @abstractmethod
    def open(self, logs: Path, told: Told) -> None:
        """Get ready. What workers print goes to that folder."""

    @abstractmethod
    def measure(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Measurement]]:
        """Measure each once, and give each as it is done; one that is decided, as it was decided.

        Raises:
            Unfinished: after the last that could be measured.
        """

    def renew(self) -> None:
        """What is measured next is measured in fresh processes."""
        if self._workers is not None:
            self._workers.renew()

    def close(self, *, kill: bool) -> None:
        """End every worker; `kill` gives none the time to leave by itself. May be called at any time."""
        if self._workers is not None:
            self._workers.close(kill=kill)
            self._workers = None
