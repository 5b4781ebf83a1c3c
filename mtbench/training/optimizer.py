"""RAdam, and the clipping that goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mtbench.training.settings import Optimization

__all__ = ["clip_each", "make_optimizer", "set_lr"]

LEAST_NORM = 1e-6
"""Added to a norm before it divides, as torch.nn.utils.clip_grad_norm_ has it."""


def make_optimizer(model: nn.Module, settings: Optimization, *, capturable: bool) -> torch.optim.RAdam:
    """torch.optim.RAdam with decoupled weight decay; `capturable` keeps its step count on the device, so that
    a CUDA graph can hold it."""
    return torch.optim.RAdam(
        model.parameters(),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        decoupled_weight_decay=True,
        foreach=True,
        capturable=capturable,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_each(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale the gradient of each parameter alone to a norm of at most `largest`. Nothing is read back."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    scale = torch._foreach_norm(gradients)
    torch._foreach_add_(scale, LEAST_NORM)
    torch._foreach_reciprocal_(scale)
    torch._foreach_mul_(scale, largest)
    torch._foreach_clamp_max_(scale, 1.0)
    torch._foreach_mul_(gradients, scale)
