"""Where rows are measured: the interface that the runner sees.

An executor first says which kinds of machine it has; then it is given the rows of a launch, each for one of
those kinds, and gives back each as it is done, in any order. What becomes of a row, and the folder, are the
runner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mtbench.backend import Backend
from mtbench.errors import BadInput, nearest
from mtbench.results import Measurement
from mtbench.sweep.machine import Machine
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.settings import Settings

__all__ = ["EXECUTORS", "Executor", "Step", "Told", "Unfinished", "new_executor"]

EXECUTORS = ("local", "ray")
WAIT_S = 60.0
"""A machine that was started anew is there again by then."""


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


class Executor(Protocol):
    """One run's. `settle` and `machines` come first, `open` before anything is measured."""

    plan: Mapping[str, Any]
    """What run.json's plan says of it: ``executor``, its name, and how it chooses machines."""

    def settle(self, settings: Settings) -> Settings:
        """The settings, with what is the same for all its machines decided.

        Raises:
            BadInput: no machine of it could do so.
        """

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

    def open(self, logs: Path, told: Told) -> None:
        """Get ready. What workers print goes to that folder."""

    def measure(self, steps: Sequence[Step]) -> Iterator[tuple[Step, Measurement]]:
        """Measure each once, and give each as it is done; one that is decided, as it was decided.

        Raises:
            Unfinished: after the last that could be measured.
        """

    def renew(self) -> None:
        """What is measured next is measured in fresh processes."""

    def close(self, *, kill: bool) -> None:
        """End every worker; `kill` gives none the time to leave by itself. May be called at any time."""


def new_executor(
    name: str, address: str | None = None, accelerator: str | None = None, wait_s: float | None = None
) -> Executor:
    """The executor of that name.

    Args:
        name: one of `EXECUTORS`.
        address: of a Ray cluster; None is the one that Ray finds here.
        accelerator: the type of GPU that a machine must have, as Ray names it.
        wait_s: how long rows that no machine of a cluster can run any more wait for one; None: `WAIT_S`.

    Raises:
        BadInput: the name is unknown, an option is not for it, Ray is not installed, or no cluster answers.
    """
    if name not in EXECUTORS:
        raise BadInput(f"--executor {name}: {nearest(name, EXECUTORS)}")
    if name == "ray":
        from mtbench.sweep.ray_executor import RayExecutor

        if wait_s is not None and not wait_s >= 0:
            raise BadInput(f"--wait {wait_s}: must be 0 or more")
        return RayExecutor(address, accelerator, WAIT_S if wait_s is None else wait_s)
    for option, value in (("--address", address), ("--accelerator", accelerator), ("--wait", wait_s)):
        if value is not None:
            raise BadInput(f"{option} {value}: that is for --executor ray")
    from mtbench.sweep.local import LocalExecutor

    return LocalExecutor()
