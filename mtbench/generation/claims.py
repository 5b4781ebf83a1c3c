"""What a paper's table of images a second claims, held against a run.

Its figures are of another card, so what can be held are ratios. A ratio's interval is that of the rounds: the
slowest of one variant over the fastest of the other, and the other way round. It **held** where all of that
lies on the claimed side of the bound, **did not hold** where all of it lies on the other, and is **not told
apart** where the bound is inside. It **could not be tested** where one of the two was not drawn from at the
size that the models were trained on and at one batch, in fewer than `LEAST_ROUNDS` rounds, from models of
other sizes than the paper's, or not on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal

from mtbench.generation.results import Generated, GenerationRun
from mtbench.training.tasks import Task
from mtbench.training.tasks.image_settings import VARIANTS

__all__ = ["LEAST_ROUNDS", "SpeedClaim", "judge_speeds"]

BASE = "linear"
LEAST_ROUNDS = 3
"""Rounds of a variant under which nothing is tested: two tell no spread."""


@dataclass(frozen=True, kw_only=True)
class SpeedClaim:
    """A claim and what came of it."""

    text: str
    verdict: str
    told: str
    """What was measured; empty where nothing was."""
    reason: str = ""
    """Why it could not be tested; else empty."""


def judge_speeds(run: GenerationRun, task: Task) -> list[SpeedClaim]:
    """Every variant of the paper's table against linear attention: how much slower a momentum may be at the
    most, by the published digits, and that softmax is slower. None where nothing is published."""
    table = task.published.images_per_s if task.published else {}
    judged = []
    for variant, text in table.items():
        if variant == BASE or BASE not in table:
            continue
        slower = variant == "softmax"
        bound = 1.0 if slower else _least(text, table[BASE])
        how = (
            "fewer images a second than linear" if slower else f"at least {bound:.3f} times linear's images/s"
        )
        claim = f"{VARIANTS[variant]} generates {how} ({text} against {table[BASE]})"
        judged.append(_judged(run, task, variant, claim, bound, below=slower))
    return judged


def _least(ours: str, theirs: str) -> float:
    """The smallest ratio that two published numbers, each rounded as it is, can have come from."""
    return (float(ours) - _half_digit(ours)) / (float(theirs) + _half_digit(theirs))


def _half_digit(text: str) -> float:
    """Half of the last digit that a number is given to: ``139.7`` may be up to 0.05 off."""
    exponent = Decimal(text).as_tuple().exponent
    return 0.5 * 10.0 ** int(exponent)


def _judged(
    run: GenerationRun, task: Task, variant: str, text: str, bound: float, *, below: bool
) -> SpeedClaim:
    pair = _pair(run, variant)
    if pair is None:
        reason = f"{variant} and {BASE} were not both drawn from at one batch, at the trained size"
        return SpeedClaim(text=text, verdict="could not be tested", told="", reason=reason)
    ours, base = pair
    low, high = min(base.seconds) / max(ours.seconds), max(base.seconds) / min(ours.seconds)
    rounds = min(len(ours.seconds), len(base.seconds))
    told = f"{low:.4g} to {high:.4g} times linear's, over {rounds} rounds, {ours.batch} images at a time"
    if reason := _untestable(run, task, rounds):
        return SpeedClaim(text=text, verdict="could not be tested", told=told, reason=reason)
    held, not_held = (high < bound, low >= bound) if below else (low >= bound, high < bound)
    verdict = "held" if held else "did not hold" if not_held else "not told apart"
    return SpeedClaim(text=text, verdict=verdict, told=told)


def _untestable(run: GenerationRun, task: Task, rounds: int) -> str:
    plan = run.header.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    drawing = plan.get("drawing")
    if not isinstance(drawing, Mapping) or drawing.get("device") != "cuda":
        return "the images were not drawn on a GPU"
    paper = asdict(task.presets["paper"].size)
    try:
        sizes = [job["model"]["size"] for job in plan["jobs"]]
    except (KeyError, TypeError):
        return "the run does not say how large its models are"
    if not sizes or any(size != paper for size in sizes):
        return "the models are not of the paper's sizes"
    if rounds < LEAST_ROUNDS:
        return f"{rounds} rounds, and at least {LEAST_ROUNDS} are wanted"
    return ""


def _pair(run: GenerationRun, variant: str) -> tuple[Generated, Generated] | None:
    """Both at the largest batch that both have, each with the rounds of all its seeds."""
    drawn: dict[tuple[str, int], Generated] = {}
    for row in run.rows:
        if row.trained_size and row.status == "ok" and row.seconds:
            before = drawn.get((row.variant, row.batch))
            seconds = row.seconds if before is None else before.seconds + row.seconds
            drawn[row.variant, row.batch] = replace(row, seconds=seconds)
    batches = [batch for name, batch in drawn if name == variant and (BASE, batch) in drawn]
    return (drawn[variant, max(batches)], drawn[BASE, max(batches)]) if batches else None
