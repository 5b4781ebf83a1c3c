"""A whole sequence in, a logit for each class out."""

from __future__ import annotations

import torch
from torch import nn

from mtbench.transformer.attention import Attend
from mtbench.transformer.config import ModelConfig
from mtbench.transformer.linear import Linear
from mtbench.transformer.model import Transformer

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """An encoder, the mean over its real positions, and a network of two layers over that, as the released
    code has it for the Long Range Arena."""

    def __init__(self, config: ModelConfig, attend: Attend, classes: int) -> None:
        super().__init__()
        size = config.size
        self.config = config
        self.encoder = Transformer(config, attend, causal=False)
        del self.encoder.head
        self.hidden = Linear(size.d_model, size.feed_forward)
        self.head = Linear(size.feed_forward, classes)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, classes] of [batch, seq_len] symbols, of which `lengths` [batch] are real."""
        x = self.encoder.encoded(tokens, lengths)  # [batch, seq_len, d_model]
        if lengths is None:
            mean = x.mean(1)
        else:
            real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
            # Chosen, not multiplied by 0: padding may be anything.
            mean = torch.where(real[..., None], x, 0.0).sum(1) / lengths[:, None]
        return self.head(self.hidden(mean.to(x.dtype)).relu())  # type: ignore[no-any-return]
