"""What is not attention, compiled: torch.compile fuses a layer's elementwise parts into few kernels.

Every part is compiled whole (`fullgraph`) or not at all, and with its sizes (`dynamic=False`); the attention
between them stays the backend's own kernel. The parameters keep their names.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from mtbench.transformer.layers import CrossLayer, Layer
from mtbench.transformer.model import EncoderDecoder
from mtbench.transformer.pixels import PixelTransformer
from mtbench.transformer.refiner import Refiner

__all__ = ["compile_parts"]

VERSIONS = 64
"""Of one part, in a process: for each shape of batch, with gradients and without, and where layers differ.
Past torch's own limit, 8, a part that is compiled whole is an error."""


def compile_parts(model: nn.Module) -> None:
    """Compile, at their first call, the projections before each self-attention, all that follows it in its
    layer, up to the next attention where there is one, and what a model makes of its logits: a pixel's
    likelihood, or the cross-entropy of a translation."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, VERSIONS)
    for module in model.modules():
        if isinstance(module, Layer):
            _compile(module.attention, "together")
            _compile(module.attention, "projected")
            for name in ("asked", "answered") if isinstance(module, CrossLayer) else ("finished",):
                _compile(module, name)
    if isinstance(model, PixelTransformer):
        _compile(model, "log_probability")
    if isinstance(model, (EncoderDecoder, Refiner)):
        _compile(model, "judged")


def _compile(module: nn.Module, name: str) -> None:
    compiled: Any = torch.compile(getattr(type(module), name), fullgraph=True, dynamic=False)
    # As a method, which a copy of the model has of its own modules: a function would be the first's.
    object.__setattr__(module, name, MethodType(compiled, module))
