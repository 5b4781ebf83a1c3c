"""Connections over depth: what becomes of a layer's input x and its attention's output g.

A plain residual connection is x + g. Read as gradient descent, with -g the gradient, it can have a momentum,
which the layers hand on: a `Connection` is given what the layer before it left (`State`), and leaves its own.
`docs/mathematics.md` has the formulas; the code that the paper's authors released differs from the paper, and
each form has a name of its own. All of x, g and the result are [batch, seq_len, d_model].
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from mtbench.transformer.config import ModelConfig

__all__ = [
    "Adaptive",
    "AdaptiveReleased",
    "Connection",
    "Momentum",
    "MomentumReleased",
    "Plain",
    "State",
    "connection",
    "optimal_momentum",
]

State = tuple[torch.Tensor, ...]
"""What one layer leaves to the next."""

SMALLEST_NORM = 1e-12
"""Norms are taken to be no less, so that they have a gradient, 0, at 0."""
SMALLEST_RATIO = 1e-12
"""The same of ratios, whose square root is taken. The momentum is at its upper limit up to 2.5e-9."""


class Connection(ABC):
    """A way from x and g to what the feed-forward part is given. It has no parameters."""

    @abstractmethod
    def start(self, x: torch.Tensor) -> State:
        """What the first layer finds; x is its input."""

    @abstractmethod
    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """The sum, before it is normalised, and what the next layer finds."""


class Plain(Connection):
    """``y = x_l + g_l``."""

    def start(self, x: torch.Tensor) -> State:
        """See `Connection.start`."""
        return ()

    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return x + g, ()


class Momentum(Connection):
    """Eq 15: ``y = x_l + g_l + momentum (x_l - x_(l-1))``, with nothing before the first layer."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def start(self, x: torch.Tensor) -> State:
        """See `Connection.start`: x_(l-1)."""
        return (x,)

    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return x + g + self.momentum * (x - state[0]), (x,)


class MomentumReleased(Connection):
    """The released code's: ``v_l = momentum v_(l-1) - g_l``, ``y = x_l - step v_l``, v_0 = 0.

    It is eq 15 where nothing but the connection stands between two layers, and step is 1.
    """

    def __init__(self, momentum: float, step: float) -> None:
        self.momentum, self.step = momentum, step

    def start(self, x: torch.Tensor) -> State:
        """See `Connection.start`: v_0."""
        return (torch.zeros_like(x),)

    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        v = self.momentum * state[0] - g
        return x - self.step * v, (v,)


class Adaptive(Connection):
    """Eq 15 with the momentum of eq 18, one a batch entry and position:
    ``clamp((1 - sqrt(|g_l - g_(l-1)| / |g_(l-1)|))^2, 0, 1 - 1e-3)``.
    """

    DELTA = 1e-3

    def start(self, x: torch.Tensor) -> State:
        """See `Connection.start`: x_(l-1). There is no g_(l-1), and no momentum, in the first layer."""
        return (x,)

    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        if len(state) == 1:
            return x + g, (x, g)
        before, g_before = state
        momentum = optimal_momentum(_norm(g - g_before), _norm(g_before), self.DELTA)
        return x + g + momentum * (x - before), (x, g)


class AdaptiveReleased(Connection):
    """The released code's velocity with an adaptive momentum, which divides by ``|v_(l-1)|``, and by
    ``|g_(l-1)|`` where v is 0; g_0 is all ones, and the upper limit 1 - 1e-4.

    On a quadratic with curvature h, ``|g_l - g_(l-1)| / |v_(l-1)|`` is step h, so that the momentum is the
    optimal one, ``(1 - sqrt(step h))^2``.
    """

    DELTA = 1e-4

    def __init__(self, step: float) -> None:
        self.step = step

    def start(self, x: torch.Tensor) -> State:
        """See `Connection.start`: v_0 and g_0."""
        return torch.zeros_like(x), torch.ones_like(x)

    def __call__(self, x: torch.Tensor, g: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        v, g_before = state
        speed = _norm(v)
        moving = speed > SMALLEST_NORM
        over = torch.where(moving, speed, _norm(g_before))
        v = optimal_momentum(_norm(g - g_before), over, self.DELTA) * v - g
        return x - self.step * v, (v, g)


def _norm(x: torch.Tensor) -> torch.Tensor:
    """Over the last axis, which is kept; its gradient at 0 is 0. In float32 at the least: squares of half
    precision overflow."""
    wide = x if x.dtype == torch.float64 else x.float()
    return wide.square().sum(-1, keepdim=True).clamp(min=SMALLEST_NORM**2).sqrt()


def optimal_momentum(change: torch.Tensor, size: torch.Tensor, delta: float) -> torch.Tensor:
    """``clamp((1 - sqrt(change / size))^2, 0, 1 - delta)`` (eq 17, 18), with a finite gradient everywhere."""
    ratio = (change / size).clamp(min=SMALLEST_RATIO)
    return (1 - ratio.sqrt()).square().clamp(0.0, 1 - delta)


def connection(config: ModelConfig) -> Connection:
    """That of a configuration."""
    momenta = config.momenta
    match config.connection:
        case "momentum":
            return Momentum(momenta.connection)
        case "momentum-released":
            return MomentumReleased(momenta.connection, momenta.step)
        case "adaptive":
            return Adaptive()
        case "adaptive-released":
            return AdaptiveReleased(momenta.adaptive_step)
        case _:
            return Plain()
