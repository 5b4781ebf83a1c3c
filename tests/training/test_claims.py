"""The rule by which claims are held against a run, on made-up numbers; and the statistics under it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from mtbench.training.claims import VERDICTS, departures, judge
from mtbench.training.published import Claim
from mtbench.training.summary import against, estimate, of_variant
from mtbench.training.tasks.copy import TASK
from mtbench.training.tasks.translation_refined import TASK as REFINED
from mtbench.training.variants import DEFAULT_VARIANTS
from tests.training.synthetic import PAPER, examined_run, made_run

LOWER = Claim(text="x", quantity="loss", variant="momentum", against="linear", relation="below", bound=1.0)
COST = Claim(
    text="x",
    quantity="seconds_per_epoch",
    variant="momentum",
    against="linear",
    relation="at most",
    bound=1.03,
)
REACHES = Claim(text="x", quantity="metric", variant="momentum", relation="at least", bound=0.95)


def seeds(*losses: float, seconds: float = 1.0, accuracy: float = 0.99) -> list[tuple[float, float, float]]:
    return [(loss, accuracy, seconds * (1 + 0.001 * n)) for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("momentum", "verdict"),
    [
        ((0.5, 0.6, 0.7), "held"),  # half of each seed's
        ((2.0, 2.4, 2.8), "did not hold"),
        ((0.5, 1.2, 2.8), "not told apart"),  # 0.5, 1 and 2 times
    ],
)
def test_a_ratio_is_paired_by_seed(momentum: tuple[float, ...], verdict: str) -> None:
    """Losses of seeds scatter alike in both variants, which the pairing takes away."""
    run = made_run({"linear": seeds(1.0, 1.2, 1.4), "momentum": seeds(*momentum)})
    assert judge(LOWER, run, TASK).verdict == verdict


def test_the_interval_is_students_on_logarithms() -> None:
    ours, theirs = (0.5, 0.7, 0.6), (1.0, 1.2, 1.4)
    run = made_run({"linear": seeds(*theirs), "momentum": seeds(*ours)})
    found = against(run, "momentum", "linear", "loss")
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(logs) / 3, scale=stats.sem(logs))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.seeds == 3


@pytest.mark.parametrize(("times", "verdict"), [(1.0, "held"), (1.02, "held"), (1.2, "did not hold")])
def test_a_cost_is_held_against_what_the_published_digits_allow(times: float, verdict: str) -> None:
    run = made_run({"linear": seeds(1, 1, 1), "momentum": seeds(1, 1, 1, seconds=times)})
    assert judge(COST, run, TASK).verdict == verdict


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.99, 0.995, 0.999), "held"),
        ((0.5, 0.51, 0.52), "did not hold"),
        ((0.93, 0.96, 0.99), "not told apart"),
        ((1.0, 1.0, 1.0), "held"),
    ],
)
def test_a_value_is_held_against_its_bound(accuracies: tuple[float, ...], verdict: str) -> None:
    run = made_run({"momentum": [(0.1, accuracy, 1.0) for accuracy in accuracies]})
    assert judge(REACHES, run, TASK).verdict == verdict


def test_what_cannot_be_tested_says_why() -> None:
    three = {"linear": seeds(1, 1.1, 1.2), "momentum": seeds(0.5, 0.6, 0.7)}
    cases = [
        (made_run({"momentum": seeds(1, 1, 1)}), LOWER, "linear was not trained"),
        (made_run({k: v[:2] for k, v in three.items()}), LOWER, "2 finished seeds in common, and at least 3"),
        (
            made_run(three, statuses={("linear", 1): "crash"}),
            LOWER,
            "2 finished seeds in common, and at least 3 are wanted",
        ),
        (
            made_run(three, schedule=replace(PAPER.schedule, epochs=10, batch=8)),
            LOWER,
            "the settings are not the paper's: epochs 10 and not 100; batch 8 and not 64",
        ),
        (made_run(three, parallel=3), COST, "3 trainings ran side by side"),
        (made_run({**three, "momentum": seeds(0.5, 0.0, 0.7)}), LOWER, "a value is 0 or not finite"),
        (made_run({**three, "momentum": seeds(0.5, math.nan, 0.7)}), LOWER, "a value is 0 or not finite"),
    ]
    for run, claim, told in cases:
        judged = judge(claim, run, TASK)
        assert judged.verdict == "could not be tested"
        assert told in judged.reason
    # Loss does not depend on who shares the device.
    assert judge(LOWER, made_run(three, parallel=3), TASK).verdict == "held"


def test_a_bound_that_is_met_exactly() -> None:
    """Intervals without width stand on one side of every bound."""
    same = made_run({"linear": seeds(1, 2, 4), "momentum": seeds(1, 2, 4)})
    found = against(same, "momentum", "linear", "loss")
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)  # type: ignore[union-attr]
    for relation, verdict in (
        ("below", "did not hold"),
        ("above", "did not hold"),
        ("at most", "held"),
        ("at least", "held"),
    ):
        assert judge(replace(LOWER, relation=relation), same, TASK).verdict == verdict  # type: ignore[arg-type]


def test_estimates() -> None:
    assert estimate([], "linear") is None
    assert estimate([1.0, -1.0], "log") is None
    assert estimate([1.0, math.inf], "linear") is None
    alone = estimate([2.0], "log")
    assert alone is not None
    assert (alone.value, alone.low, alone.high) == (pytest.approx(2.0), None, None)
    mean = of_variant(made_run({"linear": seeds(1.0, 4.0, 2.0)}), "linear", "loss")
    assert mean is not None
    assert mean.value == pytest.approx(2.0)


def test_every_claim_of_the_paper_speaks_of_what_is_trained_by_default() -> None:
    assert TASK.published is not None
    run = made_run()
    assert departures(run, TASK) == []
    for claim in TASK.published.claims:
        assert {claim.variant, claim.against or "linear"} <= set(DEFAULT_VARIANTS)
        assert judge(claim, run, TASK).verdict in VERDICTS[:3]
    for values in TASK.published.values.values():
        assert set(values) <= set(DEFAULT_VARIANTS)


@pytest.mark.parametrize(("parallel", "verdict"), [(1, "held"), (4, "could not be tested")])
def test_a_score_is_a_quantity_and_a_speed_wants_the_device_alone(
    parallel: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {
        name: [{"BLEU": base + seed, "decoded subwords/s": 1000 * base + seed} for seed in range(3)]
        for name, base in (("softmax", 20.0), ("linear", 10.0))
    }
    run = examined_run(scores, parallel=parallel)
    monkeypatch.setitem(
        REFINED.presets,  # type: ignore[arg-type]
        "paper",
        replace(REFINED.presets["paper"], schedule=run.jobs[0].job.schedule),
    )
    for quantity, wanted in (("BLEU", "held"), ("decoded subwords/s", verdict)):
        claim = Claim(
            text="x", quantity=quantity, variant="softmax", against="linear", relation="above", bound=1.0
        )
        assert judge(claim, run, REFINED).verdict == wanted
