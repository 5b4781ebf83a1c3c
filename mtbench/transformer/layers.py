"""One layer, post-norm as in the paper's code: attention, connection, norm, feed-forward, norm."""

from __future__ import annotations

import torch
from torch import nn

from mtbench.transformer.attention import Attend, MultiHeadAttention
from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.connections import State, connection

__all__ = ["CrossLayer", "FeedForward", "Layer"]


class FeedForward(nn.Module):
    """``linear2(relu(linear1(x)))`` with dropout behind both, a position at a time."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.linear1 = nn.Linear(size.d_model, size.feed_forward)
        self.linear2 = nn.Linear(size.feed_forward, size.d_model)
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
        q, k, v = self.attention.together(x)
        return self.finished(x, self.attention.mixed(q, k, v, lengths), state)

    def finished(self, x: torch.Tensor, mixed: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """All that follows `MultiHeadAttention.mixed`."""
        y, state = self.attended(x, self.attention.out(mixed), state)
        return self.fed(y), state

    def attended(self, x: torch.Tensor, attention: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """What follows the self-attention, up to its norm."""
        y, state = self.connection(x, self.dropout(attention), state)
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
        memory: torch.Tensor,
        memory_lengths: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, State]:
        """As `Layer.forward`; memory is [batch, kv_len, d_model]."""
        y, state = self.attended(x, self.attention(x, lengths=lengths), state)
        return self.fed(self.crossed(y, self.cross(y, memory, memory_lengths))), state

    def crossed(self, y: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """What follows the cross-attention, up to its norm."""
        return self.norm_cross(y + self.dropout(attention))  # type: ignore[no-any-return]
