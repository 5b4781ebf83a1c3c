"""One layer, post-norm as in the paper's code: attention, connection, norm, feed-forward, norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mtbench.transformer.attention import Attend, MultiHeadAttention, by_head
from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.connections import State, connection
from mtbench.transformer.linear import Linear, multiplied

__all__ = ["CrossLayer", "FeedForward", "Layer", "Memory", "remembered"]

Memory = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of another sequence, as a layer sees them: [batch, kv_len, heads, dim] each."""


class FeedForward(nn.Module):
    """``linear2(relu(linear1(x)))`` with dropout behind both, a position at a time."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.linear1 = Linear(size.d_model, size.feed_forward)
        self.linear2 = Linear(size.feed_forward, size.d_model)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, seq_len, d_model] of the same."""
        return self.dropout(self.linear2(self.dropout(self.linear1(x).relu())))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Self-attention and feed-forward: ``LN2(y + FFN(y))`` of ``y = LN1(connection(x,
    Dropout(attention(x))))``."""

    def __init__(self, config: ModelConfig, attend: Attend, *, causal: bool) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config, attend, causal=causal)
        self.norm1 = nn.LayerNorm(config.size.d_model)
        self.feed_forward = FeedForward(config.size)
        self.norm2 = nn.LayerNorm(config.size.d_model)
        self.dropout = nn.Dropout(config.size.dropout)
        self.connection = connection(config)

    def forward(
        self, x: torch.Tensor, state: State, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, State]:
        """The layer's output, [batch, seq_len, d_model], and its connection's state."""
        return self.finished(x, self.attention.mixed(*self.attention.together(x), lengths), state)

    def finished(self, x: torch.Tensor, mixed: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """All that follows `MultiHeadAttention.mixed`."""
        y, state = self.attended(x, mixed, state)
        return self.fed(y), state

    def attended(self, x: torch.Tensor, mixed: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """What follows the self-attention, up to its norm."""
        y, state = self.connection(x, self.dropout(self.attention.out.merged(mixed)), state)
        return self.norm1(y), state

    def fed(self, y: torch.Tensor) -> torch.Tensor:
        """The feed-forward part with its own plain residual."""
        return self.norm2(y + self.feed_forward(y))  # type: ignore[no-any-return]


class CrossLayer(Layer):
    """A layer that also attends to another sequence, behind its self-attention, over a plain residual: the
    momentum connection is the self-attention's alone."""

    def __init__(self, config: ModelConfig, attend: Attend, *, causal: bool = True) -> None:
        super().__init__(config, attend, causal=causal)
        self.cross = MultiHeadAttention(config, attend, causal=False)
        self.norm_cross = nn.LayerNorm(config.size.d_model)

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        state: State,
        memory: Memory,
        memory_lengths: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, State]:
        """As `Layer.forward`; `remembered` makes the memory."""
        mixed = self.attention.mixed(*self.attention.together(x), lengths)
        y, q, state = self.asked(x, mixed, state)
        return self.answered(y, self.cross.mixed(q, *memory, memory_lengths)), state

    def asked(
        self, x: torch.Tensor, mixed: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """What lies between the two attentions: what is handed on, the cross-attention's q, and the state."""
        y, state = self.attended(x, mixed, state)
        return y, self.cross.asked(y), state

    def answered(self, y: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """All that follows the cross-attention."""
        return self.fed(self.norm_cross(y + self.dropout(self.cross.out.merged(mixed))))


def remembered(layers: Sequence[CrossLayer], memory: torch.Tensor) -> list[Memory]:
    """Of each layer its keys and values of another sequence, [batch, kv_len, d_model]."""
    parts = [part for layer in layers for part in (layer.cross.key, layer.cross.value)]
    found = [by_head(x) for x in multiplied(memory, *parts, heads=layers[0].cross.heads)]
    return list(zip(found[::2], found[1::2], strict=True))
