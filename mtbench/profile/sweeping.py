"""Profiles of a sweep's rows, made after the last of its clocks has run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtbench.errors import BackendFailure, BadInput, StorageError
from mtbench.profile.command import make_profile
from mtbench.profile.names import profile_folder
from mtbench.profile.target import refusal, target_of_row
from mtbench.results import Measurement, Run

__all__ = ["Choice", "choice", "profile_rows"]

WORDS = re.compile(r"(slowest|fastest):([1-9][0-9]{0,3})")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows are profiled."""

    slowest: bool
    most: int

    def rows(self, run: Run) -> list[Measurement]:
        """Those of a run: by the device clock where a row has it, else by the wall clock."""
        timed = [row for row in run if not refusal(row)]
        return sorted(timed, key=_ms, reverse=self.slowest)[: self.most]


def _ms(row: Measurement) -> float:
    clock = row.device_ms or row.wall_ms
    return clock.median if clock else 0.0


def choice(words: str) -> Choice:
    """What an option says.

    Raises:
        BadInput: it says something else.

    >>> choice("slowest:5")
    Choice(slowest=True, most=5)
    """
    found = WORDS.fullmatch(words)
    if found is None:
        raise BadInput(f"--profile {words}: slowest:N or fastest:N, as in slowest:5")
    return Choice(slowest=found[1] == "slowest", most=int(found[2]))


def profile_rows(
    folder: Path,
    chosen: Choice,
    *,
    command: Sequence[str],
    tell: Callable[[str], None],
    complain: Callable[[str], None],
) -> int:
    """Profile rows of a run, each into its folder among the run's ``profiles``. How many it made.

    Args:
        folder: the run's.
        chosen: which rows.
        command: the words it was asked for with.
        tell: is told what comes next.
        complain: is told why one could not be made, in one line; the others are made all the same.
    """
    made = 0
    run = Run.load(folder)
    rows = chosen.rows(run)
    for number, row in enumerate(rows, start=1):
        where = f"[{number}/{len(rows)}] {row.backend} {row.form} {row.case.id}"
        tell(where)
        try:
            target, _ = target_of_row(folder, row.id)
            make_profile(
                target,
                profile_folder(folder, row.id),
                row=row,
                threads=run.header.get("plan", {}).get("threads"),
                command=command,
                tell=lambda stage, where=where: tell(f"{where}: {stage}"),  # type: ignore[misc]
            )
        except (BadInput, BackendFailure, StorageError) as error:
            complain(f"no profile of {row.id}: {error}")
        else:
            made += 1
    return made
