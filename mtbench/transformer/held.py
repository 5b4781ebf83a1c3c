"""The padded weights of a model (`mtbench.transformer.linear`), made once for all that uses them.

A model has a hundred layers, and to pad and cast each by itself would take five small kernels, forward and
backward. So all parameters are put side by side, and the rows of all layers taken out of that by one gather;
their gradients go back by another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from mtbench.transformer.linear import ALIGNED, Linear, odd

__all__ = ["held", "in_bfloat16"]


@contextlib.contextmanager
def held(model: nn.Module, device: str, dtype: torch.dtype) -> Iterator[None]:
    """Pad and cast the weights of a model once for all that is computed inside, which is one forward: with
    gradients, those of every use meet in half precision, as under autocast with its cache."""
    multiple = ALIGNED.get((device, dtype))
    layers: Sequence[Linear] = []
    try:
        if multiple is not None:
            gather = _gather(model, multiple)
            layers = gather.layers
            for layer, rows in zip(layers, gather(dtype), strict=True):
                layer.held = rows
        yield
    finally:
        for layer in layers:
            layer.held = None


@contextlib.contextmanager
def in_bfloat16(model: nn.Module, device: str) -> Iterator[None]:
    """Autocast for all that is computed of a model inside, its weights cast once where they are `held`."""
    # Autocast's own cache would hold tensors of another step's graph.
    cast = torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)
    with cast, held(model, device, torch.bfloat16):
        yield


_GATHERS: WeakKeyDictionary[nn.Module, dict[Any, _Gather]] = WeakKeyDictionary()


def _gather(model: nn.Module, multiple: int) -> _Gather:
    """That of a model, where its parameters are now."""
    key = multiple, next(model.parameters()).device
    known = _GATHERS.setdefault(model, {})
    if key not in known:
        known[key] = _Gather(model, multiple)
    return known[key]


class _Gather:
    """Where each number of a model's padded rows lies among its parameters, and the other way."""

    def __init__(self, model: nn.Module, multiple: int) -> None:
        found = [module for module in model.modules() if isinstance(module, Linear)]
        self.layers = [layer for layer in found if odd(layer, multiple)]
        self.shapes = [layer.padded(multiple) for layer in self.layers]
        zero = sum(p.numel() for p in self._parameters())
        places, back, first, base = [], [], 0, 0
        for layer, shape in zip(self.layers, self.shapes, strict=True):
            n, k = layer.weight.shape
            own = np.full(shape, zero, np.int32)
            own[:n, :k] = first + np.arange(n * k).reshape(n, k)
            own[:n, k] = first + n * k + np.arange(n)
            places.append(own.ravel())
            at = base + np.arange(own.size, dtype=np.int32).reshape(shape)
            back += [at[:n, :k].ravel(), at[:n, k]]
            first, base = first + n * (k + 1), base + own.size
        device = next(model.parameters()).device
        empty = [np.zeros(0, np.int32)]
        self.places = torch.from_numpy(np.concatenate(places + empty)).to(device)
        self.back = torch.from_numpy(np.concatenate(back + empty)).to(device)

    def __call__(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """The rows of each layer."""
        if not self.layers:
            return ()
        found: tuple[torch.Tensor, ...] = _Rows.apply(self, dtype, *self._parameters())  # type: ignore[no-untyped-call]
        return found

    def _parameters(self) -> list[torch.Tensor]:
        return [p for layer in self.layers for p in (layer.weight, layer.bias)]


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gather: _Gather, dtype: torch.dtype, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.gather, ctx.dtype = gather, parameters[0].dtype
        ctx.shapes = [p.shape for p in parameters]
        zero = parameters[0].new_zeros(1)
        flat = torch.cat([*(p.flatten() for p in parameters), zero]).to(dtype)
        return _cut(flat.index_select(0, gather.places), gather.shapes)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        return None, None, *_cut(flat.index_select(0, ctx.gather.back).to(ctx.dtype), ctx.shapes)


def _cut(flat: torch.Tensor, shapes: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    parts = flat.split([int(np.prod(shape)) for shape in shapes])
    return tuple(part.view(*shape) for part, shape in zip(parts, shapes, strict=True))
