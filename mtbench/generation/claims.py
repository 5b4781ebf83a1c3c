"""What a paper's table of images a second claims, held against a run.

Its figures are of another card, so what can be held are ratios. A ratio's interval is that of the rounds: the
slowest of one variant over the fastest of the other, and the other way round. It **held** where all of that
lies on the claimed side of the bound, **did not hold** where all of it lies on the other, and is **not told
apart** where the bound is inside. It **could not be tested** where one of the two was not drawn from, at the
size that the models were trained on and at one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mtbench.generation.results import Generated, GenerationRun
from mtbench.training.published import Published

__all__ = ["SpeedClaim", "judge_speeds"]

BASE = "linear"


@dataclass(frozen=True, kw_only=True)
class SpeedClaim:
    """A claim and what came of it."""

    text: str
    verdict: str
    told: str
    """What was measured, or why nothing could be tested."""


def judge_speeds(run: GenerationRun, published: Published) -> list[SpeedClaim]:
    """Every variant of the table against linear attention: how much slower a momentum may be at the most, by
    the published digits, and that softmax is slower."""
    table = published.images_per_s
    judged = []
    for variant, text in table.items():
        if variant == BASE or BASE not in table:
            continue
        ours, theirs = float(text), float(table[BASE])
        if variant == "softmax":
            told, bound = (
                f"Softmax generates fewer images a second than linear ({text} against {table[BASE]})",
                1.0,
            )
        else:
            bound = (ours - _half_digit(text)) / (theirs + _half_digit(table[BASE]))
            told = (
                f"{variant.capitalize()} generates at least {bound:.3f} times linear's images a second "
                f"({text} against {table[BASE]})"
            )
        judged.append(_judged(run, variant, told, bound, below=variant == "softmax"))
    return judged


def _half_digit(text: str) -> float:
    """Half of the last digit that a number is given to: ``139.7`` may be up to 0.05 off."""
    exponent = Decimal(text).as_tuple().exponent
    return 0.5 * 10.0 ** int(exponent)


def _judged(run: GenerationRun, variant: str, text: str, bound: float, *, below: bool) -> SpeedClaim:
    pair = _pair(run, variant)
    if pair is None:
        told = f"{variant} and {BASE} were not both drawn from at one batch, at the trained size"
        return SpeedClaim(text=text, verdict="could not be tested", told=told)
    ours, base = pair
    low, high = min(base.seconds) / max(ours.seconds), max(base.seconds) / min(ours.seconds)
    held, not_held = (high < bound, low >= bound) if below else (low >= bound, high < bound)
    verdict = "held" if held else "did not hold" if not_held else "not told apart"
    told = f"{low:.4g} to {high:.4g} times, over {len(ours.seconds)} rounds, batch {ours.batch}"
    return SpeedClaim(text=text, verdict=verdict, told=told)


def _pair(run: GenerationRun, variant: str) -> tuple[Generated, Generated] | None:
    """Both at the largest batch that both have."""
    drawn = {
        (row.variant, row.batch): row
        for row in run.rows
        if row.trained_size and row.status == "ok" and row.seconds
    }
    batches = [batch for name, batch in drawn if name == variant and (BASE, batch) in drawn]
    return (drawn[variant, max(batches)], drawn[BASE, max(batches)]) if batches else None
