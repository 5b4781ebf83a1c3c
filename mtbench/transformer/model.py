"""Whole models: an encoder, a causal decoder, and an encoder with a decoder.

>>> import torch
>>> from mtbench.transformer.attention import BackendAttention
>>> from mtbench.transformer.config import ModelConfig, ModelSize
>>> size = ModelSize(vocabulary=11, max_len=128, d_model=32, layers=2, heads=2, head_dim=16, feed_forward=64)
>>> config = ModelConfig(size=size, attention="momentum", connection="adaptive")
>>> model = Transformer(config, BackendAttention("torch-eager"), causal=True)
>>> model(torch.zeros(3, 20, dtype=torch.long)).shape
torch.Size([3, 20, 11])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from mtbench.transformer.attention import Attend
from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.layers import CrossLayer, Layer, remembered
from mtbench.transformer.linear import Linear
from mtbench.transformer.losses import each_cross_entropy

__all__ = ["Embedding", "EncoderDecoder", "Transformer", "shifted", "sinusoids"]


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """[positions, width]: sines and cosines in turn, of position / 10000^(2i / width)."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(positions)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :width]


def shifted(target: torch.Tensor, begin: int) -> torch.Tensor:
    """What a decoder sees before each symbol of the target, [batch, target_len]: `begin`, and the target but
    its last."""
    return nn.functional.pad(target[:, :-1], (1, 0), value=begin)


class Embedding(nn.Module):
    """A symbol's own vector beside its position's: half of d_model each, as in the paper's code, not their
    sum."""

    positions: torch.Tensor

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        own = size.d_model // 2
        self.symbols = nn.Embedding(size.vocabulary, own)
        # Not in the state: it is no parameter, and a model may be loaded for longer sequences.
        self.register_buffer("positions", sinusoids(size.max_len, size.d_model - own), persistent=False)

    def forward(self, tokens: torch.Tensor, first: int = 0) -> torch.Tensor:
        """[batch, seq_len, d_model] of [batch, seq_len] symbols, the first of which stands at position
        `first`."""
        encoding = self.positions[first : first + tokens.shape[1]]
        return torch.cat((self.symbols(tokens), encoding.expand(len(tokens), -1, -1)), -1)


class Transformer(nn.Module):
    """Symbols in, a logit for each symbol at each position out. Causal it is a decoder, else an encoder."""

    def __init__(
        self, config: ModelConfig, attend: Attend, *, causal: bool, outputs: int | None = None
    ) -> None:
        """`outputs` is how many numbers it says of each position: by default a logit for each symbol."""
        super().__init__()
        size = config.size
        self.config, self.causal = config, causal
        self.embedding = Embedding(size)
        layers = nn.ModuleList(Layer(config, attend, causal=causal) for _ in range(size.layers))
        self.layers = cast("Sequence[Layer]", layers)
        self.norm = nn.LayerNorm(size.d_model)
        self.head = Linear(size.d_model, outputs or size.vocabulary)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, seq_len, vocabulary] of [batch, seq_len] symbols; lengths [batch] are the real ones of each
        entry."""
        return self.head(self.encoded(tokens, lengths))  # type: ignore[no-any-return]

    def encoded(self, tokens: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """What the head sees: [batch, seq_len, d_model]."""
        x = self.embedding(tokens)
        state = self.layers[0].connection.start(x)
        for layer in self.layers:
            x, state = layer(x, state, lengths)
        return self.norm(x)  # type: ignore[no-any-return]


class EncoderDecoder(nn.Module):
    """A source sequence in, and a target sequence, each position of which sees the source and what is before
    it."""

    def __init__(self, config: ModelConfig, attend: Attend, source_vocabulary: int | None = None) -> None:
        """`source_vocabulary` is by default the target's."""
        super().__init__()
        size = config.size
        source = replace(size, vocabulary=source_vocabulary or size.vocabulary)
        self.config = config
        self.encoder = Transformer(replace(config, size=source), attend, causal=False)
        del self.encoder.head
        self.embedding = Embedding(size)
        layers = nn.ModuleList(CrossLayer(config, attend) for _ in range(size.layers))
        self.layers = cast("Sequence[CrossLayer]", layers)
        self.norm = nn.LayerNorm(size.d_model)
        self.head = Linear(size.d_model, size.vocabulary)

    def forward(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        source_lengths: torch.Tensor | None = None,
        target_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[batch, target_len, vocabulary] of source [batch, source_len] and target [batch, target_len]
        symbols, of which so many are real, [batch]."""
        memory = self.encoder.encoded(source, source_lengths)
        x = self.embedding(target)
        state = self.layers[0].connection.start(x)
        for layer, kept in zip(self.layers, remembered(self.layers, memory), strict=True):
            x, state = layer(x, state, kept, source_lengths, target_lengths)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def judged(
        self, logits: torch.Tensor, target: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`each_cross_entropy` of what `forward` gives."""
        return each_cross_entropy(logits, target, lengths)
