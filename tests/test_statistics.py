from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench.measure.clocks import union_ns
from mtbench.measure.statistics import Samples

values = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


@given(values)
def test_the_interval_holds_the_median_and_lies_within_the_samples(values: list[float]) -> None:
    samples = Samples(values)
    low, high = samples.interval
    assert min(values) <= low <= samples.median <= high <= max(values)
    assert samples.interval == Samples(values).interval  # seeded


@given(values)
def test_no_sample_is_dropped(values: list[float]) -> None:
    assert Samples.from_dict(Samples(values).to_dict()).values == tuple(values)


def test_an_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = Samples(rng.lognormal(size=30)).interval
        held += low <= 1.0 <= high
    assert 0.90 <= held / 300 <= 0.99


def test_one_outlier_is_counted() -> None:
    assert Samples([1.0] * 9 + [1.01] * 9 + [5.0]).outliers == 1


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        Samples([])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), min_size=1, max_size=12))
def test_the_union_of_intervals_counts_every_instant_once(pairs: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in pairs]
    assert union_ns(intervals) == len({t for start, end in intervals for t in range(start, end)})
