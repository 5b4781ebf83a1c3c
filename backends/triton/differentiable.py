"""The kernels as one function that torch can differentiate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .launch import Launch
from .plan import Plan

__all__ = ["differentiable"]


@dataclass(frozen=True)
class Pass:
    """A forward, its backward and what both of them need."""

    attention: Callable[..., Any]
    gradients: Callable[..., Any]
    plan: Plan
    launch: Launch


class Attention(torch.autograd.Function):
    """``o`` of a `Pass`, q, k and v, and a call's own lengths."""

    @staticmethod
    def forward(
        ctx: Any,
        both: Pass,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: torch.Tensor | None = None,
    ) -> Any:
        """Keeps the inputs, the output, the denominators and the states between segments; the lengths too, so
        that torch sees where they have changed before the backward reads them again."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # a model's may lie otherwise
        plan = both.plan.of(lengths)
        o, kept = both.attention(plan, both.launch, q, k, v, keep=True)
        ctx.both, ctx.plan = both, plan
        ctx.save_for_backward(q, k, v, o, plan.lengths, *kept)
        return o

    @staticmethod
    def backward(ctx: Any, do: torch.Tensor) -> Any:
        """dq, dk and dv."""
        q, k, v, o, _, *kept = ctx.saved_tensors
        both = ctx.both
        return None, *both.gradients(ctx.plan, both.launch, q, k, v, o, do.contiguous(), *kept), None


def differentiable(
    attention: Callable[..., Any], gradients: Callable[..., Any], plan: Plan, launch: Launch
) -> Callable[..., Any]:
    """``o(q, k, v)`` or ``o(q, k, v, lengths)`` with `gradients` as its backward."""
    return functools.partial(Attention.apply, Pass(attention, gradients, plan, launch))
