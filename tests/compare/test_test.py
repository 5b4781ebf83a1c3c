"""The test itself: known answers, and what it finds in simulated runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench.compare.test import adjusted, moderated_test, shared_shift, squeezed_variances, trimmed, widening
from mtbench.compare.verdicts import verdict_of
from tests.compare.conftest import simulate

EFFECT = math.log(1.03)


def verdicts(a, b, names):
    tested = moderated_test(list(a), list(b), names, effect_log=EFFECT)
    return [
        verdict_of(float(x), tested.drift, float(q), EFFECT)[0]
        for x, q in zip(tested.log_ratio, tested.q, strict=True)
    ]


def flagged(found):
    return sum(verdict in ("slower", "faster") for verdict in found)


def test_the_slowest_launches_are_trimmed():
    """Three of eight; the rest has Yuen's variance: squares about the winsorized mean, over h (h - 1)."""
    x = np.array([5.0, 1.0, 2.0, 3.0, 2.5, 100.0, 2.2, 2.7])
    mean, squares, left = trimmed(x)
    winsorized = np.array([1.0, 2.0, 2.2, 2.5, 2.7, 2.7, 2.7, 2.7])
    assert left == 5
    assert mean == pytest.approx(np.mean([1.0, 2.0, 2.2, 2.5, 2.7]))
    assert squares == pytest.approx(((winsorized - winsorized.mean()) ** 2).sum())
    assert trimmed(np.array([1.0, 9.0, 2.0])) == (1.5, pytest.approx(2 / 3), 2)


def test_launches_at_half_the_speed_hide_little():
    """Every fourth launch of each side, as on a machine whose host is shared."""
    a, b, names = simulate(seed=4)
    rng = np.random.default_rng(4)
    for side in (a, b):
        side *= 1 + rng.uniform(0.5, 1.0, side.shape) * (rng.random(side.shape) < 0.2)
    assert flagged(verdicts(a, b, names)) <= 4
    b[::4] *= 1.1
    assert sum(verdict == "slower" for verdict in verdicts(a, b, names)[::4]) >= 40


def test_variances_are_drawn_to_what_made_them():
    rng = np.random.default_rng(0)
    true = 0.04 * 8 / rng.chisquare(8, 20_000)
    freedom = np.full(len(true), 5.0)
    found, d0 = squeezed_variances(true * rng.chisquare(5, len(true)) / 5, freedom)
    assert d0 == pytest.approx(8, rel=0.1)
    # the posterior of the common prior, (d0 s0^2 + d s^2) / (d0 + d), is nearer to the truth than s^2 was
    assert found.min() == pytest.approx(0.04 * d0 / (d0 + 5), rel=0.1)


def test_variances_of_one_spread_become_one():
    found, d0 = squeezed_variances(0.04 * np.linspace(0.9, 1.1, 50), np.full(50, 5.0))
    assert d0 == math.inf
    assert np.ptp(found) == 0


def test_one_variance_has_nothing_to_be_drawn_to():
    found, d0 = squeezed_variances(np.array([0.04]), np.array([5.0]))
    assert (found.tolist(), d0) == ([0.04], 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_keeps_the_order_and_never_goes_below(p):
    values = np.array(p)
    q = adjusted(values)
    assert (q >= values).all()
    assert (q <= 1).all()
    order = np.argsort(values)
    assert (np.diff(q[order]) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.data())
def test_adjusted_is_monotone(p, data):
    """A smaller p anywhere makes no q larger."""
    values = np.array(p)
    index = data.draw(st.integers(0, len(p) - 1))
    smaller = values.copy()
    smaller[index] *= data.draw(st.floats(0, 1))
    assert (adjusted(smaller) <= adjusted(values) + 1e-12).all()


def test_adjusted_is_scipys():
    from scipy import stats

    p = np.random.default_rng(0).uniform(0, 1, 100) ** 2
    assert adjusted(p) == pytest.approx(stats.false_discovery_control(p))


@given(st.lists(st.floats(-1, 1), max_size=9))
def test_a_shared_shift_is_one_of_theirs_and_mirrors(middles):
    shift = shared_shift(middles)
    assert shift == 0 or shift in middles
    assert shared_shift([-m for m in middles]) == -shift
    assert abs(shift) <= max(map(abs, middles), default=0)


def test_one_backend_that_changed_is_no_shared_shift():
    assert shared_shift([0.1, 0.0, 0.001, -0.002]) == 0.0
    assert shared_shift([0.1, 0.02, 0.021, 0.03]) == 0.021
    assert shared_shift([0.1, 0.1]) == 0.1
    assert shared_shift([0.1, -0.1]) == 0.0


def test_widening_is_one_where_all_is_as_it_should_be():
    rng = np.random.default_rng(0)
    residuals, errors, freedom = rng.standard_t(10, 4000), np.ones(4000), np.full(4000, 10.0)
    assert widening(residuals, errors, freedom) == pytest.approx(1, abs=0.05)
    assert widening(3 * residuals, errors, freedom) == pytest.approx(3, rel=0.05)
    assert widening(0 * residuals, errors, freedom) == 1


def test_identical_sides_are_the_same():
    a, _, names = simulate()
    assert set(verdicts(a, a, names)) == {"same"}


def test_equal_medians_without_any_noise():
    a = np.ones((20, 4))
    b = a.copy()
    b[3] = 1.2
    found = verdicts(a, b, ["x"] * 20)
    assert found[3] == "slower"
    assert set(found[:3] + found[4:]) == {"same"}


@pytest.mark.parametrize("drift", [-0.04, 0.0, 0.025, 0.04])
def test_two_runs_of_the_same_code(drift):
    """At most 2% flagged, whatever all cases share."""
    for seed in range(5):
        assert flagged(verdicts(*simulate(drift=drift, seed=seed))) <= 4


@pytest.mark.parametrize("drift", [-0.02, 0.0, 0.02])
def test_one_backend_slowed(drift):
    caught, faster = [], 0
    for seed in range(5):
        a, b, names = simulate(drift=drift, seed=seed)
        own = np.array(names) == "triton"
        b[own] *= 1.1
        found = np.array(verdicts(a, b, names))
        caught.append((found[own] == "slower").mean())
        faster += (found == "faster").sum()
        assert flagged(found[~own]) <= 4
    assert np.mean(caught) >= 0.9
    assert faster == 0


def test_a_lone_regression_among_200():
    a, b, names = simulate(seed=1, drift=0.01)
    caught = 0
    trials = range(0, 200, 4)
    for case in trials:
        slowed = b.copy()
        slowed[case] *= 1.1
        found = verdicts(a, slowed, names)
        caught += found[case] == "slower"
        assert found[case] != "faster"
    assert caught / len(trials) >= 0.8


def test_disturbed_launches_hide_little():
    """One launch of each case a half longer: the trimmed mean and variance do not see it."""
    a, b, names = simulate(seed=2)
    b[:, 3] *= 1.5
    assert flagged(verdicts(a, b, names)) <= 4
    b[::4] *= 1.1
    assert sum(verdict == "slower" for verdict in verdicts(a, b, names)[::4]) >= 40


def test_a_change_of_all_is_never_called_the_same():
    """Every case 10% slower: the machine or the code, nobody can tell; not one is `same` or `faster`."""
    a, b, names = simulate(drift=0.1, seed=3)
    assert set(verdicts(a, b, names)) <= {"unsure", "slower"}


def test_one_backend_alone_has_no_drift_to_hide_behind():
    a, b, _ = simulate(drift=0.1, seed=3)
    assert verdicts(a, b, ["mine"] * 200).count("slower") >= 180


@given(st.integers(0, 30), st.floats(-0.1, 0.1))
def test_swapping_the_sides_mirrors_the_verdicts(seed, drift):
    a, b, names = simulate(cases=24, drift=drift, noise=0.01, seed=seed)
    b[::5] *= 1.15
    b[1::7] /= 1.15
    mirror = {"slower": "faster", "faster": "slower"}
    assert [mirror.get(v, v) for v in verdicts(b, a, names)] == verdicts(a, b, names)


def test_launches_may_differ_in_number():
    a, b, names = simulate(cases=30)
    tested = moderated_test(list(a), [row[: 3 + n % 5] for n, row in enumerate(b)], names, effect_log=EFFECT)
    assert np.isfinite(tested.p).all()
    # the same noise, fewer launches: a larger error
    assert tested.standard_error[0] > tested.standard_error[4]
