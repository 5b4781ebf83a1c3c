"""Connections over depth: the forms, where they agree, and their gradients, at 0 too."""

from __future__ import annotations

import math

import pytest
import torch

from mtbench.transformer.config import CONNECTION_KINDS, ModelConfig, ModelSize, Momenta
from mtbench.transformer.connections import (
    Adaptive,
    AdaptiveReleased,
    Connection,
    Momentum,
    MomentumReleased,
    Plain,
    connection,
)

pytestmark = pytest.mark.torch

SIZE = ModelSize(vocabulary=3, max_len=8)


def through(connection: Connection, x: torch.Tensor, outputs: list[torch.Tensor]) -> torch.Tensor:
    """The layers' attention outputs one after another, with norm and feed-forward the identity."""
    state = connection.start(x)
    for g in outputs:
        x, state = connection(x, g, state)
    return x


def drawn(seed: int, count: int = 4) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x, *outputs = torch.randn(count + 1, 2, 3, 5, dtype=torch.float64, generator=generator)
    return x, outputs


def named(name: str) -> Connection:
    momenta = Momenta(connection=0.7, step=0.8, adaptive_step=0.8)
    return connection(ModelConfig(size=SIZE, connection=name, momenta=momenta))


def test_each_name_is_another_function() -> None:
    x, outputs = drawn(0)
    results = [through(named(name), x, outputs) for name in CONNECTION_KINDS]
    for one in range(len(results)):
        for other in range(one):
            assert not torch.allclose(results[one], results[other])


@pytest.mark.parametrize("still", [Momentum(0.0), MomentumReleased(0.0, 1.0)])
def test_without_momentum_and_with_step_1_it_is_the_plain_residual(still: Connection) -> None:
    x, outputs = drawn(1)
    assert torch.equal(through(still, x, outputs), through(Plain(), x, outputs))


def test_eq_15_and_the_velocity_agree_where_nothing_else_stands_between_layers() -> None:
    x, outputs = drawn(2)
    paper, released = (through(c, x, outputs) for c in (Momentum(0.6), MomentumReleased(0.6, 1.0)))
    torch.testing.assert_close(paper, released, rtol=1e-13, atol=1e-13)
    other = through(MomentumReleased(0.6, 0.9), x, outputs)
    assert not torch.allclose(paper, other)


def test_eq_15_by_hand() -> None:
    x, (g1, g2, *_) = drawn(3)
    x1 = x + g1
    wanted = x1 + g2 + 0.6 * (x1 - x)
    torch.testing.assert_close(through(Momentum(0.6), x, [g1, g2]), wanted, rtol=0, atol=0)


def test_eq_18_by_hand() -> None:
    x, (g1, g2, *_) = drawn(4)
    g2 = g1 + 0.1 * g2
    share = (g2 - g1).norm(dim=-1, keepdim=True) / g1.norm(dim=-1, keepdim=True)
    momentum = ((1 - share.sqrt()) ** 2).clamp(0, 1 - 1e-3)
    wanted = x + g1 + g2 + momentum * g1
    torch.testing.assert_close(through(Adaptive(), x, [g1, g2]), wanted, rtol=1e-13, atol=1e-13)


def descended(connection: AdaptiveReleased, curvature: float) -> list[float]:
    """The momenta that the layers choose on the quadratic ``curvature / 2 |x|^2``, of which -g is the
    gradient."""
    x = torch.ones(1, 1, 3, dtype=torch.float64)
    state, momenta = connection.start(x), []
    for _ in range(6):
        v_before, g = state[0], -curvature * x
        x, state = connection(x, g, state)
        if v_before.abs().max() > 0:
            momenta.append(float(((state[0] + g) / v_before)[0, 0, 0]))
    return momenta


@pytest.mark.parametrize("curvature", [0.05, 0.3, 0.9])
def test_on_a_quadratic_the_released_form_finds_the_optimal_momentum(curvature: float) -> None:
    """Heavy ball with step s on curvature h is fastest at (1 - sqrt(s h))^2."""
    step = 0.8
    optimal = (1 - math.sqrt(step * curvature)) ** 2
    found = descended(AdaptiveReleased(step), curvature)
    assert len(found) == 5
    assert found == pytest.approx([optimal] * 5, rel=1e-9)


def test_on_a_quadratic_eq_18_does_not() -> None:
    """Its ratio is |x_l - x_(l-1)| / |x_(l-1)|, which is the curvature in the first step alone."""
    curvature, x = 0.3, torch.ones(1, 1, 3, dtype=torch.float64)
    adaptive, found = Adaptive(), []
    state = adaptive.start(x)
    for _ in range(6):
        g = -curvature * x
        y, after = adaptive(x, g, state)
        if len(state) == 2 and (x - state[0]).abs().max() > 0:
            found.append(float(((y - x - g) / (x - state[0]))[0, 0, 0]))
        x, state = y, after
    optimal = (1 - math.sqrt(curvature)) ** 2
    assert found[0] == pytest.approx(optimal)
    assert max(abs(m - optimal) for m in found[1:]) > 0.05


@pytest.mark.parametrize("name", CONNECTION_KINDS)
def test_gradients(name: str) -> None:
    """Away from the clamp's ends, against differences in float64."""
    x, outputs = drawn(5, count=3)
    near = [outputs[0] * (1 + 0.1 * k) + 0.02 * g for k, g in enumerate(outputs)]
    leaves = tuple(t.requires_grad_() for t in (x, *near))

    def run(x: torch.Tensor, *outputs: torch.Tensor) -> torch.Tensor:
        return through(named(name), x, list(outputs))

    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("name", CONNECTION_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("odd", ["zeros", "equal", "ones", "tiny", "large"])
def test_nothing_is_infinite_at_a_singularity(name: str, dtype: torch.dtype, odd: str) -> None:
    x = torch.zeros(1, 2, 4, dtype=dtype).requires_grad_()
    base = {
        "zeros": torch.zeros_like(x),
        "equal": torch.full_like(x, 0.5),
        "ones": torch.ones_like(x),
        "tiny": torch.full_like(x, 1e-30),
        "large": torch.full_like(x, 1e15),
    }[odd].detach()
    outputs = [base.clone().requires_grad_() for _ in range(4)]
    y = through(named(name), x, outputs)
    y.sum().backward()
    assert y.isfinite().all()
    for leaf in (x, *outputs):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
