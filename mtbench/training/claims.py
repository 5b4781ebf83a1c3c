"""Whether a paper's claims hold in a run.

The rule, the same for all: a claim is about a mean over seeds, or a ratio of two of them, paired by seed, and
a bound. It **held** where the whole 95% interval lies on the claimed side of the bound, **did not hold**
where the whole interval lies on the other, and is **not told apart** where the bound is inside. It **could
not be tested** where a variant it speaks of has fewer than `LEAST_SEEDS` trainings that got to their end,
where the task's settings are not the paper's, and, of times, where trainings ran side by side and so shared
the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mtbench.training.published import Claim
from mtbench.training.results import TrainingRun
from mtbench.training.settings import Job
from mtbench.training.summary import Estimate, against, of_variant, values
from mtbench.training.tasks import Task

__all__ = ["LEAST_SEEDS", "VERDICTS", "Judged", "Verdict", "departures", "judge"]

Verdict = Literal["held", "did not hold", "not told apart", "could not be tested"]
VERDICTS: tuple[Verdict, ...] = ("held", "did not hold", "not told apart", "could not be tested")
LEAST_SEEDS = 3
"""Trainings of a variant under which nothing is tested: two tell no spread."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim and what came of it."""

    claim: Claim
    verdict: Verdict
    reason: str
    """Why it could not be tested; else empty."""
    estimate: Estimate | None
    """What was measured: where there is any, of a claim that could not be tested too."""


def judge(claim: Claim, run: TrainingRun, task: Task) -> Judged:
    """By the rule above."""
    measured = (
        of_variant(run, claim.variant, claim.quantity, task.measured(claim.quantity))
        if claim.against is None
        else against(run, claim.variant, claim.against, claim.quantity)
    )
    reason = _untestable(claim, run, task)
    if reason or measured is None or measured.low is None or measured.high is None:
        told = reason or "a value is 0 or not finite, so there is no ratio"
        return Judged(claim=claim, verdict="could not be tested", reason=told, estimate=measured)
    return Judged(
        claim=claim, verdict=_verdict(claim, measured.low, measured.high), reason="", estimate=measured
    )


def _verdict(claim: Claim, low: float, high: float) -> Verdict:
    """Of a whole interval."""
    bound = claim.bound
    held, not_held = {
        "below": (high < bound, low >= bound),
        "at most": (high <= bound, low > bound),
        "above": (low > bound, high <= bound),
        "at least": (low >= bound, high < bound),
    }[claim.relation]
    return "held" if held else "did not hold" if not_held else "not told apart"


def _untestable(claim: Claim, run: TrainingRun, task: Task) -> str:
    sides = [claim.variant, *([claim.against] if claim.against else [])]
    for variant in sides:
        if not run.of(variant):
            return f"{variant} was not trained"
    if other := departures(run, task):
        return "the settings are not the paper's: " + "; ".join(other)
    seeds = [set(values(run, variant, claim.quantity)) for variant in sides]
    common = len(set.intersection(*seeds))
    if common < LEAST_SEEDS:
        both = " in common" if len(sides) > 1 else ""
        return f"{common} finished seeds{both}, and at least {LEAST_SEEDS} are wanted"
    measured = task.measured(claim.quantity)
    timed = claim.quantity == "seconds_per_epoch" or (measured is not None and measured.timed)
    if timed and run.header["plan"].get("parallel", 1) > 1:
        return f"{run.header['plan']['parallel']} trainings ran side by side, and shared the device"
    return ""


def departures(run: TrainingRun, task: Task) -> list[str]:
    """Where a run's settings are not those of the task's preset ``paper``: a line each."""
    if not run.jobs:
        return []
    paper = task.presets["paper"]
    wanted: dict[str, Any] = {
        **asdict(paper.schedule),
        **asdict(paper.size),
        **asdict(paper.optimization),
        **asdict(task.momenta),
    }
    # How often held-out data is looked at changes nothing of what is learnt.
    looks = ("evaluations", "evaluation_batches")
    found = {key: value for key, value in _numbers(run.jobs[0].job).items() if key not in looks}
    return [
        f"{key.replace('_', ' ')} {_plain(value)} and not {_plain(wanted[key])}"
        for key, value in found.items()
        if value != wanted[key]
    ]


def _numbers(job: Job) -> Mapping[str, Any]:
    return {
        **asdict(job.schedule),
        **asdict(job.model.size),
        **asdict(job.optimization),
        **asdict(job.model.momenta),
    }


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
