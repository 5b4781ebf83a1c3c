"""At which length two attentions are equally fast: known crossings, and their intervals."""

from __future__ import annotations

import math
import random

import pytest

from mtbench.measure.statistics import RESAMPLES, Samples
from reports.crossing import Contest, Equal, equal_length, tokens_shown
from reports.sentences import equal
from reports.verdict import judge

LENGTHS = (128, 256, 512, 1024, 2048)


def around(ms, width=0.05, n=40, seed=0):
    noise = random.Random(f"{seed} {ms}")
    return Samples(ms * math.exp(width * noise.gauss(0, 1)) for _ in range(n))


def contests(softmax, other, lengths=LENGTHS, width=0.05, seed=0):
    """Of times that are functions of the length."""
    return [
        Contest(
            seq_len=n,
            softmax=(around(softmax(n), width, seed=seed),),
            other=(around(other(n), width, seed=seed + 1000),),
        )
        for n in lengths
    ]


def test_a_known_crossing_of_two_power_laws():
    """N^2 / 700 and N cross at 700, between two measured lengths."""
    found = equal_length(contests(lambda n: n * n / 700, float))
    assert found.within
    assert found.length == pytest.approx(700, rel=0.05)
    assert found.low <= found.length <= found.high
    assert found.high / found.low < 1.2


def test_without_noise_it_is_exact():
    found = equal_length(contests(lambda n: n * n / 700, float, width=0))
    assert (found.length, found.low, found.high) == pytest.approx((700,) * 3, rel=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(60):
        found = equal_length(contests(lambda n: n * n / 700, float, lengths=(512, 1024), seed=seed))
        held += found.low <= 700 <= found.high
    assert held >= 51  # 95% of 60 is 57


def test_below_the_sweep_and_beyond_it():
    below = equal_length(contests(lambda n: 2.0 * n, float))
    assert (below.length, below.low, below.high) == (0, 0, 0)
    beyond = equal_length(contests(float, lambda n: 2.0 * n))
    assert beyond.length == beyond.low == beyond.high == math.inf
    assert not below.within
    assert not beyond.within


def test_the_last_crossing_counts():
    """Faster at 128, slower at 256, and faster again from 512 on."""
    times = {128: 2.0, 256: 0.5, 512: 2.0}
    found = equal_length(contests(lambda n: times[n], lambda n: 1.0, lengths=(128, 256, 512), width=0))
    assert found.length == pytest.approx(math.sqrt(256 * 512))


def test_an_end_that_is_not_sure_is_open():
    """At the largest length the two are equal but for the noise."""
    times = {512: 0.5, 1024: 1.002}
    found = equal_length(contests(lambda n: times[n], lambda n: 1.0, lengths=(512, 1024)))
    assert found.high == math.inf
    assert found.low < 1024
    assert tokens_shown(found, (512, 1024)).endswith("to beyond 1024)") or not found.within


def test_the_best_form_is_chosen_anew():
    slow, fast = around(9.0), around(1.0, seed=5)
    one = [Contest(seq_len=n, softmax=(around(n / 700),), other=(fast,)) for n in (512, 1024)]
    more = [Contest(seq_len=c.seq_len, softmax=c.softmax, other=(fast, slow)) for c in one]
    assert equal_length(more).length == pytest.approx(equal_length(one).length)


def test_one_length_has_no_crossing():
    assert equal_length(contests(float, float, lengths=(256,))) is None
    assert equal_length([]) is None


def test_draws_of_two_rows_differ():
    same = around(1.0)
    assert len(same.resampled(1)) == RESAMPLES
    assert (same.resampled(1) != same.resampled(2)).any()
    assert (same.resampled(1) == same.resampled(1)).all()
    low, high = same.interval
    assert low < same.median < high


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (Equal(length=735.3, low=723.2, high=741.0), "735 (723 to 741)"),
        (Equal(length=7353.1, low=6900.0, high=7810.0), "7400 (6900 to 7800)"),
        (Equal(length=782.0, low=0, high=800.0), "782 (below 128 to 800)"),
        (Equal(length=782.0, low=700.0, high=math.inf), "780 (700 to beyond 2048)"),
        (Equal(length=700.0, low=700.0, high=700.0), "700 (700 to 700)"),
    ],
)
def test_no_more_digits_than_the_interval_allows(found, shown):
    assert tokens_shown(found, LENGTHS) == shown


def test_the_verdict_has_it_for_each_backend(row):
    rows = [row(n * n / 7e5, seq_len=n) for n in LENGTHS]
    rows += [row(n / 1e3, seq_len=n, attention="linear") for n in LENGTHS]
    rows += [row(n / 1e3, seq_len=n, attention="momentum") for n in (512, 1024)]
    (verdict,) = judge(rows)
    linear, momentum = verdict.crossovers
    assert linear.equal.length == pytest.approx(700, rel=0.05)
    assert (linear.start, momentum.start) == (1024, 1024)
    assert equal(linear).startswith("equally fast at about ")
    assert momentum.equal.length == pytest.approx(700, rel=0.05)


def test_a_length_that_is_hardly_known_is_not_0():
    assert tokens_shown(Equal(length=782.3, low=300, high=120_000), LENGTHS) == "800 (300 to 120000)"
