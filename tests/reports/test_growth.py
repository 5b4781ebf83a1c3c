"""Exponents of known growth, and which lengths they are of."""

from __future__ import annotations

import pytest

from reports import sentences
from reports.growth import growths
from reports.verdict import judge


def grown(row, time, lengths=(256, 512, 1024, 2048), **more):
    (verdict,) = judge([row(time(n), seq_len=n, width=0.01, **more) for n in lengths])
    (found,) = growths(verdict)
    return found


@pytest.mark.parametrize(("power", "said"), [(1.0, "O(N)"), (2.0, "O(N²)"), (1.5, "between O(N) and O(N²)")])
def test_a_known_exponent(row, power, said):
    found = grown(row, lambda n: (n / 256) ** power)
    slope = found.slope
    assert slope.exponent == pytest.approx(power, abs=0.02)
    assert slope.low <= slope.exponent <= slope.high
    assert slope.high - slope.low < 0.02
    assert (found.used, found.left_out) == ((256, 512, 1024, 2048), ())
    assert sentences.growth(found).endswith(f": {said}")
    assert sentences.used(found) == "of 256, 512, 1024 and 2048"


def test_lengths_at_which_fixed_costs_rule_are_left_out(row):
    found = grown(row, lambda n: 1 + (n / 1024) ** 2, lengths=(64, 128, 256, 512, 1024, 2048, 4096, 8192))
    assert found.used == (2048, 4096, 8192)
    assert found.slope.exponent == pytest.approx(1.85, abs=0.02)
    assert "without 64, 128, 256, 512 and 1024" in sentences.used(found)


def test_too_few_that_are_long_enough(row):
    found = grown(row, lambda n: 1 + (n / 1024) ** 2, lengths=(128, 256, 1024))
    assert found.slope is None
    assert sentences.growth(found) == "too few lengths are long enough"


def test_two_lengths_have_no_exponent(row):
    (verdict,) = judge([row(1.0, seq_len=n) for n in (256, 512)])
    assert growths(verdict) == []


def test_each_form_has_its_own(row):
    rows = [
        row(float(n), seq_len=n, form=form, attention=kind)
        for n in (256, 512, 1024)
        for form in ("b", "a")
        for kind in ("linear", "softmax")
    ]
    (verdict,) = judge(rows)
    assert [(g.attention, g.form) for g in growths(verdict)] == [
        ("softmax", "a"),
        ("softmax", "b"),
        ("linear", "a"),
        ("linear", "b"),
    ]


def test_noise_between_neighbours_is_no_growth(row):
    lengths = range(1024, 4097, 64)
    (verdict,) = judge([row(n / 1024, seq_len=n, width=0.1) for n in lengths])
    (found,) = growths(verdict)
    assert found.left_out == ()
    assert found.slope.exponent == pytest.approx(1, abs=0.05)
    assert sentences.used(found) == "of 49 lengths, 1024..4096"


def test_lengths_that_are_near_each_other_have_a_wide_interval(row):
    (verdict,) = judge([row(1.0, seq_len=n, width=0.1) for n in (1000, 1010, 1020)])
    (found,) = growths(verdict)
    assert found.slope.high - found.slope.low > 1
