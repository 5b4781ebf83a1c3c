"""RAdam, and the clipping that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from mtbench.training.settings import Optimization

__all__ = ["FlatRAdam", "clip_each", "make_optimizer", "set_lr"]

LEAST_NORM = 1e-6
"""Added to a norm before it divides, as torch.nn.utils.clip_grad_norm_ has it."""
ALIGNED = 64
"""Numbers between whose multiples a parameter begins: kernels want aligned addresses."""


class FlatRAdam(torch.optim.RAdam):
    """torch.optim.RAdam of all parameters as one tensor, of which each becomes a view.

    RAdam works out its rectification anew for every tensor it is given, on the device where a CUDA graph is
    to hold it: some ten kernels for each of a model's hundred tensors, though it is the same number for all.
    A parameter without a gradient takes part with one of 0.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], **settings: Any) -> None:
        self.parameters = list(parameters)
        sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in self.parameters]
        first = self.parameters[0]
        flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        gradient = torch.zeros_like(flat)
        self._gradients = []
        for parameter, part, own in zip(
            self.parameters, flat.split(sizes), gradient.split(sizes), strict=True
        ):
            view = part[: parameter.numel()].view_as(parameter)
            view.copy_(parameter.detach())
            parameter.data = view
            self._gradients.append(own[: parameter.numel()].view_as(parameter))
        self._flat = nn.Parameter(flat)
        self._flat.grad = gradient
        super().__init__([self._flat], **settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The parameters' own gradients are given up, and made anew by the next backward."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """See `torch.optim.Optimizer.step`."""
        with torch.no_grad():
            there = [(own, p.grad) for own, p in zip(self._gradients, self.parameters, strict=True)]
            torch._foreach_copy_(
                [own for own, grad in there if grad is not None],
                [grad for _, grad in there if grad is not None],
            )
            for own, grad in there:
                if grad is None:
                    own.zero_()
        result: float | None = super().step(closure)
        return result


def make_optimizer(model: nn.Module, settings: Optimization, *, capturable: bool) -> FlatRAdam:
    """RAdam with decoupled weight decay; `capturable` keeps its step count on the device, so that a CUDA
    graph can hold it."""
    return FlatRAdam(
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
