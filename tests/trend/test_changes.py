"""Steps that are there are found, and noise is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtbench.trend.changes import find_changes

EFFECT = math.log1p(0.03)


def noise(cases, runs, *, seed=0, spread=0.015, shared=0.01, disturbed=0.0):
    """x [case, run] of code that does not change: a spread of each case's own, a drift that a run's cases
    share, and now and then a launch that was disturbed."""
    rng = np.random.default_rng(seed)
    own = spread * np.sqrt(6 / rng.chisquare(6, cases))
    x = rng.normal(0, 1, (cases, runs)) * own[:, None] + rng.normal(0, shared, runs)
    return x + (rng.random((cases, runs)) < disturbed) * rng.exponential(0.15, (cases, runs))


@pytest.mark.parametrize("disturbed", [0, 0.02])
@pytest.mark.parametrize("runs", [4, 6, 8, 20])
def test_noise_has_no_changes(runs, disturbed):
    flagged = sum(
        bool(steps)
        for seed in range(4)
        for steps in find_changes(list(noise(200, runs, seed=seed, disturbed=disturbed)), effect_log=EFFECT)
    )
    assert flagged <= 0.02 * 800


def test_one_case_alone_of_two_hundred():
    found = 0
    for seed in range(6):
        x = noise(200, 20, seed=seed)
        x[7, 11:] += math.log(1.1)
        steps = find_changes(list(x), effect_log=EFFECT)[7]
        found += any(abs(step.at - 11) <= 1 for step in steps)
    assert found >= 5


def test_a_step_says_how_large_it_is():
    x = noise(40, 16, seed=3)
    x[0, 8:] += math.log(1.25)
    x[1, 10:] -= math.log(1.25)
    (slower,), (faster,) = find_changes(list(x), effect_log=EFFECT)[:2]
    assert (slower.at, faster.at) == (8, 10)
    assert slower.log_ratio == pytest.approx(math.log(1.25), abs=slower.reach)
    assert faster.log_ratio == pytest.approx(-math.log(1.25), abs=faster.reach)
    assert 0 < slower.reach < 0.05


def test_a_slow_down_that_was_mended_has_two_steps():
    """Which plain binary segmentation cannot see: no single cut tells the halves apart."""
    x = noise(40, 25, seed=1)
    x[0, 10:15] += math.log(1.2)
    assert [step.at for step in find_changes(list(x), effect_log=EFFECT)[0]] == [10, 15]


def test_a_staircase_has_each_of_its_steps():
    x = noise(40, 24, seed=2, spread=0.008, shared=0.004)
    x[0, 8:] += math.log(1.15)
    x[0, 16:] += math.log(1.15)
    assert [step.at for step in find_changes(list(x), effect_log=EFFECT)[0]] == [8, 16]


@pytest.mark.parametrize("at", [0, 6, 11])
def test_one_run_that_stands_out_is_no_change(at):
    x = noise(40, 12, seed=5)
    x[0, at] += math.log(1.5)
    assert find_changes(list(x), effect_log=EFFECT)[0] == []


def test_what_does_not_matter_is_no_change():
    x = noise(40, 40, seed=6, spread=0.002, shared=0.001)
    x[0, 20:] += math.log(1.02)
    x[1, 20:] += math.log(1.06)
    steps = find_changes(list(x), effect_log=EFFECT)
    assert steps[0] == []
    assert [step.at for step in steps[1]] == [20]
    assert len(find_changes(list(x), effect_log=math.log1p(0.01))[0]) == 1


def test_few_runs_and_equal_ones():
    short = [np.zeros(n) for n in (1, 2, 3)]
    assert find_changes(short, effect_log=EFFECT) == [[], [], []]
    assert find_changes([], effect_log=EFFECT) == []
    assert find_changes([np.zeros(12), np.zeros(4), np.zeros(2)], effect_log=EFFECT) == [[], [], []]
    step = np.repeat([0.0, 0.5], 4)
    assert [s.at for s in find_changes([step], effect_log=EFFECT)[0]] == [4]
