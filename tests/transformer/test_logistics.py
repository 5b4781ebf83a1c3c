"""The mixture of logistics: against sums over all levels, numbers worked out by hand, and its own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

torch = pytest.importorskip("torch")

from mtbench.transformer.logistics import LEVELS, draw_levels, level_log_probability  # noqa: E402

pytestmark = pytest.mark.torch


def parameters(seed: int, count: int, components: int, dtype: torch.dtype) -> torch.Tensor:
    """Means within and beyond the levels, scales from below the least to far above the range."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, components))
    means = rng.normal(0, 1.5, (count, components))
    log_scales = rng.uniform(-9, 3, (count, components))
    return torch.from_numpy(np.concatenate((logits, means, log_scales), -1)).to(dtype)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_levels_sum_to_one(dtype: torch.dtype, within: float) -> None:
    made = parameters(0, 200, 10, dtype)
    every = level_log_probability(made[:, None], torch.arange(LEVELS).expand(200, -1))
    assert every.dtype == dtype
    assert every.isfinite().all()
    assert (every.exp().sum(-1) - 1).abs().max() < within


def test_one_component_by_hand() -> None:
    """Mean 0 and scale 1/255: the edges of level 128, which lies half a step, 1/255, right of the mean, are 0
    and 2 scales away. The tails of a scale that is as wide as the range."""
    narrow = torch.tensor([[5.0, 0.0, -math.log(255)]], dtype=torch.float64)
    expected = 1 / (1 + math.exp(-2)) - 0.5
    assert level_log_probability(narrow, torch.tensor([128])).exp().item() == pytest.approx(expected)
    wide = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)
    low = 1 / (1 + math.exp(1 - 1 / 255))
    for level in (0, 255):
        assert level_log_probability(wide, torch.tensor([level])).exp().item() == pytest.approx(low)


def test_it_is_the_difference_of_distribution_functions() -> None:
    """By SciPy's logistic distribution, where the difference has digits left."""
    made = parameters(1, 50, 3, torch.float64)
    share = special.softmax(made[:, :3].numpy(), -1)
    means, scales = made[:, 3:6].numpy(), np.exp(np.maximum(made[:, 6:].numpy(), -7))
    edges = np.arange(1, LEVELS) / 127.5 - 1 - 1 / 255
    below = stats.logistic.cdf(edges[:, None, None], means, scales)  # [255, 50, 3]
    cumulated = np.concatenate((np.zeros((1, 50, 3)), below, np.ones((1, 50, 3))))
    expected = (np.diff(cumulated, axis=0) * share).sum(-1).T  # [50, 256]
    found = level_log_probability(made[:, None], torch.arange(LEVELS).expand(50, -1)).exp().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_level_far_from_every_component_has_a_probability_and_a_gradient() -> None:
    made = torch.tensor([[0.0, -1.0, -7.0]], requires_grad=True)
    found = level_log_probability(made, torch.tensor([200]))
    found.sum().backward()
    assert found.item() < -1000
    assert made.grad is not None
    assert made.grad.isfinite().all()
    assert made.grad[0, 1] > 0  # it wants the mean further up


def test_samples_come_as_often_as_their_probability_says() -> None:
    """A chi-squared test of 200,000 samples of one distribution, levels that are rare put together."""
    made = torch.tensor([[0.3, -0.5, 1.0, -0.9, 0.1, 0.95, -3.0, -2.0, -4.0]], dtype=torch.float64)
    count = 200_000
    uniform = torch.rand(count, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = np.bincount(draw_levels(made.expand(count, -1), uniform).numpy(), minlength=LEVELS)
    expected = level_log_probability(made[:, None], torch.arange(LEVELS)[None]).exp()[0].numpy() * count
    often = expected > 20
    groups = [np.append(x[often], x[~often].sum()) for x in (found, expected)]
    assert stats.chisquare(groups[0], groups[1] * groups[0].sum() / groups[1].sum()).pvalue > 0.001


def test_the_ends_of_the_uniform_numbers_are_levels() -> None:
    made = parameters(2, 64, 10, torch.float32)
    for value in (0.0, 1 - 2**-24):
        levels = draw_levels(made, torch.full((64, 2), value))
        assert ((levels >= 0) & (levels < LEVELS)).all()
