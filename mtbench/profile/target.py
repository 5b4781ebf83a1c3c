"""What is to be profiled: one case in one form of one backend, from words or from a row of a run."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mtbench.backend import Backend, form_for, refuse_interpreted
from mtbench.errors import BadInput
from mtbench.measure.environment import device_problem
from mtbench.registry import load_backend
from mtbench.results import Measurement, Run
from mtbench.spec import Case

__all__ = ["Target", "refusal", "target_of", "target_of_row"]

MOST_NAMED = 5
NEAREST = 3
"""Ids that are named where none has the words: they show what an id looks like, too."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """It can run here, as far as the declarations tell."""

    asked: str
    """The backend as it was asked for."""
    backend: Backend
    case: Case
    form: str


def target_of(asked: str, case: Case, form: str | None) -> Target:
    """A case, checked.

    Raises:
        BadInput: the backend is unknown, cannot run here, does not do the case, or is only interpreted.
    """
    backend = load_backend(asked)
    if problem := device_problem(case.device):
        raise BadInput(f"device {case.device!r} is not there: {problem}")
    chosen = form_for(backend, case, form)
    why, instead = "and has no time there, and so no profile", "a backend that is not, such as torch-eager"
    refuse_interpreted(backend, case.device, why=why, instead=instead)
    return Target(asked=asked, backend=backend, case=case, form=chosen)


def target_of_row(folder: Path, words: str) -> tuple[Target, Measurement]:
    """The case of a row, by its id or a part of it that no other row has; and the row.

    Raises:
        BadInput: there is no such run or row, several have the words, it is not ok, or as `target_of`.
    """
    run = Run.load(folder)
    row = _row(run, words)
    if why := refusal(row):
        raise BadInput(f"row {row.id}: {why}")
    asked = str(next((name for name in _backends(run) if _named(name, row.backend)), row.backend))
    return target_of(asked, row.case, row.form), row


def _row(run: Run, words: str) -> Measurement:
    exact = [row for row in run if row.id == words]
    found = exact or [row for row in run if words in row.id]
    if not found:
        known = [row.id for row in run]
        near = ", ".join(get_close_matches(words, known, n=NEAREST, cutoff=0.0)) or "none"
        raise BadInput(
            f"--row {words}: {run.folder} has no such row of its {len(known)}; the nearest: {near}; every id "
            f"is in {run.folder / 'measurements.jsonl'}"
        )
    if len(found) > 1:
        told = ", ".join(row.id for row in found[:MOST_NAMED])
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise BadInput(f"--row {words}: {len(found)} rows have that in their id, name one: {told}{more}")
    return found[0]


def _backends(run: Run) -> list[str]:
    found = run.header.get("plan", {}).get("backends", [])
    return [str(name) for name in found] if isinstance(found, list) else []


def _named(asked: str, backend: str) -> bool:
    """Whether a backend was asked for so: by a file, whose name says nothing, only loading it tells."""
    if not asked.endswith(".py"):
        return asked == backend
    return Path(asked).is_file() and load_backend(asked).name == backend


def refusal(row: Measurement) -> str:
    """Why no profile is made of a row, in one line; empty where one is."""
    if row.status != "ok":
        told = f": {row.reason}" if row.reason else ""
        return f"it is {row.status}, and what is not ok is not profiled{told}"
    if row.wall_ms is None:
        return f"it has no time ({row.wall_reason or row.reason}), and so no profile"
    if row.case.world_size > 1:
        return f"it is over {row.case.world_size} devices, and a profile is of one"
    return ""
