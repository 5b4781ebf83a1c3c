"""A causal decoder of images, a pixel after another: each is read, and the distribution of the next is said,
as a mixture of logistics.

The first symbol that it reads is none of the 256 levels: the first pixel is predicted, too, and the
likelihood is that of a whole image. (The paper's code is given the first pixel.)

>>> from mtbench.transformer.config import ModelSize
>>> from mtbench.transformer.plain import plain_attention
>>> size = ModelSize(vocabulary=SYMBOLS, max_len=16, d_model=8, layers=1, heads=2, head_dim=4, feed_forward=8)
>>> model = PixelTransformer(ModelConfig(size=size), plain_attention)
>>> model(torch.zeros(3, 16, dtype=torch.uint8)).shape
torch.Size([3, 16])
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mtbench.transformer.attention import Attend
from mtbench.transformer.config import ModelConfig
from mtbench.transformer.logistics import LEVELS, level_log_probability
from mtbench.transformer.model import Transformer

__all__ = ["COMPONENTS", "START", "SYMBOLS", "FewSymbols", "PixelTransformer"]

COMPONENTS = 10
"""Logistics of a mixture, as in the paper."""
START = LEVELS
"""The symbol before the first pixel."""
SYMBOLS = LEVELS + 1


class _Lookup(torch.autograd.Function):
    """Rows of a table, whose gradient is a product with a table of ones and zeros.

    PyTorch's own gradient adds up the places of one symbol one after the other, and four fifths of an image
    may be one level. The product takes as long whatever the symbols are, and adds in a fixed order.
    """

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(symbols)
        ctx.rows = len(table)
        return functional.embedding(symbols, table)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (symbols,) = ctx.saved_tensors
        rows = torch.arange(ctx.rows, device=symbols.device)
        here = (rows[:, None] == symbols.flatten()).to(gradient.dtype)
        with torch.autocast(gradient.device.type, enabled=False):
            return here @ gradient.flatten(0, -2), None


class FewSymbols(nn.Embedding):
    """An embedding of few symbols that come often."""

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """[..., width] of symbols [...]."""
        found: torch.Tensor = _Lookup.apply(self.weight, symbols)  # type: ignore[no-untyped-call]
        return found


class PixelTransformer(Transformer):
    """Images in, the logarithm of each pixel's probability out."""

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        """Raises ValueError: a vocabulary that is not the levels and the start."""
        if config.size.vocabulary != SYMBOLS:
            raise ValueError(f"a model of pixels reads {SYMBOLS} symbols, not {config.size.vocabulary}")
        super().__init__(config, attend, causal=True, outputs=3 * COMPONENTS)
        table = self.embedding.symbols.weight.detach()
        self.embedding.symbols = FewSymbols(len(table), table.shape[1], _weight=table)

    def forward(self, pixels: torch.Tensor, lengths: None = None) -> torch.Tensor:  # type: ignore[override]
        """Nats, [batch, positions], of levels of that shape in any dtype of whole numbers."""
        start = torch.full_like(pixels[:, :1], START, dtype=torch.long)
        encoded = self.encoded(torch.cat((start, pixels[:, :-1].long()), 1))
        return self.log_probability(encoded, pixels)

    def log_probability(self, encoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Of each pixel, by what the head sees at its position."""
        return level_log_probability(self.mixture(encoded), pixels)

    def mixture(self, encoded: torch.Tensor) -> torch.Tensor:
        """[..., 3 x COMPONENTS]. In float32 whatever surrounds it: a mean in bfloat16 is half a level off."""
        with torch.autocast(encoded.device.type, enabled=False):
            return self.head(encoded.to(self.head.weight.dtype))  # type: ignore[no-any-return]
