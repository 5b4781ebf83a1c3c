"""A pixel's distribution: a mixture of logistics, cut into its 256 levels.

A level y of 0 .. 255 stands for ``x = 2 y / 255 - 1`` and for what lies within half a step, 1/255, of it; the
lowest and the highest take the tails. A component of mean m and scale s gives it, with a the upper edge and b
the lower one, both as ``(edge - m) / s``::

    P(y) = sigmoid(a) - sigmoid(b);  P(0) = sigmoid(a);  P(255) = 1 - sigmoid(b)

so the 256 sum to 1. The paper's code, after PixelCNN++ (Salimans et al. 2017, section 2.1), trains by the
same, with an approximation where a component gives less than 1e-5. Here the difference is taken on
logarithms, which is exact everywhere: ``log(sigmoid(a) - sigmoid(b)) = logsigmoid(a) + logsigmoid(-b) +
log(1 - exp(b - a))``, and ``a - b = 2 / (255 s)`` whatever y and m are.

Where that code samples it takes another scale, ``elu(.) + 1.0001`` of the number whose exponential it was
trained with. Here samples are drawn from what was trained.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["LEVELS", "LOG_SCALE_LEAST", "draw_levels", "level_log_probability"]

LEVELS = 256
LOG_SCALE_LEAST = -7.0
"""The logarithm of a scale is taken to be no less, as in the paper's code: a tenth of a level wide."""
STEP = 2 / (LEVELS - 1)
"""Between two levels, in x."""


def _split(parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits, means and logarithms of scales, float32 at the least, [..., components] each."""
    wide = parameters if parameters.dtype == torch.float64 else parameters.float()
    logits, means, log_scales = wide.chunk(3, -1)
    return logits, means, log_scales.clamp(min=LOG_SCALE_LEAST)


def level_log_probability(parameters: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The logarithm of each level's probability, in nats.

    Args:
        parameters: [..., 3 x components]: logits, means, logarithms of scales.
        levels: [...], whole numbers of 0 to 255.

    Returns:
        [...], float32, or float64 where the parameters are.
    """
    logits, means, log_scales = _split(parameters)
    narrow = torch.exp(-log_scales)  # 1 / s
    y = levels[..., None]
    centred = (y.to(means.dtype) * STEP - 1 - means) * narrow
    half = STEP / 2 * narrow
    below = functional.logsigmoid(centred + half)
    above = functional.logsigmoid(half - centred)
    lowest, highest = y == 0, y == LEVELS - 1
    inside = torch.log(-torch.expm1(-2 * half))
    each = torch.where(
        lowest, below, torch.where(highest, above, below + above + inside)
    )  # [..., components]
    return torch.logsumexp(each + functional.log_softmax(logits, -1), -1)


def draw_levels(parameters: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """A level of each distribution: a component by its share, a number of that logistic, the level next to
    it.

    Args:
        parameters: as of `level_log_probability`.
        uniform: [..., 2], independent and uniform in [0, 1): the first chooses the component, the second is
            the logistic's quantile.

    Returns:
        [...] int64, of 0 to 255.
    """
    logits, means, log_scales = _split(parameters)
    share = logits.softmax(-1).cumsum(-1)
    # Rounded sums may end below 1: the last component takes what is left.
    chosen = (uniform[..., :1] >= share[..., :-1]).sum(-1, keepdim=True)
    mean, log_scale = means.gather(-1, chosen)[..., 0], log_scales.gather(-1, chosen)[..., 0]
    tiny = torch.finfo(means.dtype).eps
    quantile = uniform[..., 1].to(means.dtype).clamp(tiny, 1 - tiny)
    x = mean + log_scale.exp() * torch.logit(quantile)
    return ((x + 1) / STEP).round().clamp(0, LEVELS - 1).long()
