"""A non-autoregressive translator by iterative refinement (Lee, Mansimov, Cho: Deterministic Non-
Autoregressive Neural Sequence Modeling by Iterative Refinement, 2018, arXiv 1802.06901).

All symbols of the target are said at once, from the source's own, spread over as many places as the target
will have; then said again from what was said, by another decoder, some times over. Training is on the mean
over all of these. How many places there are is read off the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from mtbench.transformer.attention import Attend
from mtbench.transformer.config import ModelConfig
from mtbench.transformer.layers import CrossLayer, Memory, remembered
from mtbench.transformer.linear import Linear
from mtbench.transformer.losses import each_cross_entropy
from mtbench.transformer.model import Embedding, Transformer

__all__ = ["OFFSETS", "PAD", "Refiner", "spread"]

PAD = 0
OFFSETS = 20
"""Places by which a target is told to be longer or shorter than its source, at most."""


def spread(source: torch.Tensor, lengths: torch.Tensor, wanted: torch.Tensor, width: int) -> torch.Tensor:
    """[batch, width]: of T wanted places the i-th (from 0) has the source's symbol at i S / T; `PAD` from T
    on.

    >>> two = torch.tensor([[5, 6, 7, 0]])
    >>> spread(two, torch.tensor([3]), torch.tensor([5]), 6)
    tensor([[5, 5, 6, 6, 7, 0]])
    """
    places = torch.arange(width, device=source.device)
    at = places * lengths[:, None] // wanted[:, None]
    at = torch.minimum(at, lengths[:, None] - 1).long()
    return torch.where(places < wanted[:, None], source.gather(1, at), PAD)


class _Decoder(nn.Module):
    """Layers of attention over the whole target, and over the source."""

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        layers = nn.ModuleList(CrossLayer(config, attend, causal=False) for _ in range(config.size.layers))
        self.layers = cast("Sequence[CrossLayer]", layers)
        self.norm = nn.LayerNorm(config.size.d_model)

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor,
        memory: Sequence[Memory],
        memory_lengths: torch.Tensor,
    ) -> torch.Tensor:
        state = self.layers[0].connection.start(x)
        for layer, kept in zip(self.layers, memory, strict=True):
            x, state = layer(x, state, kept, memory_lengths, lengths)
        return self.norm(x)  # type: ignore[no-any-return]


class Refiner(nn.Module):
    """An encoder, a decoder that speaks first and one that refines. Source and target share the symbols."""

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        size = config.size
        self.config = config
        self.encoder = Transformer(config, attend, causal=False)
        del self.encoder.head
        self.embedding = Embedding(size)
        self.first, self.again = _Decoder(config, attend), _Decoder(config, attend)
        self.head = Linear(size.d_model, size.vocabulary)
        self.offset = Linear(size.d_model, 2 * OFFSETS + 1)

    def encoded(self, source: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the decoders attend to, [batch, source_len, d_model], and logits of how much longer the target
        is, [batch, 2 OFFSETS + 1]. Lengths teach the encoder nothing."""
        memory = self.encoder.encoded(source, lengths)
        real = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        mean = torch.where(real[..., None], memory.detach(), 0.0).sum(1) / lengths[:, None]
        return memory, self.offset(mean.to(memory.dtype))

    def told(self, offsets: torch.Tensor, lengths: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of how much longer each target is, [batch], by the logits that `encoded` has."""
        longer = (wanted - lengths + OFFSETS).clamp(0, 2 * OFFSETS).long()
        return nn.functional.cross_entropy(offsets.float(), longer, reduction="none")

    def said(
        self,
        source: torch.Tensor,
        lengths: torch.Tensor,
        memory: torch.Tensor,
        wanted: torch.Tensor,
        width: int,
        times: int,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each time logits, [batch, width, vocabulary], and the likeliest symbols, [batch, width], of
        targets of `wanted` places. What the decoders see of the source is made once for all times."""
        tokens = spread(source, lengths, wanted, width)
        places = torch.arange(width, device=source.device)
        found = []
        decoder, kept = self.first, remembered(self.first.layers, memory)
        for time in range(times):
            if time == 1:
                decoder, kept = self.again, remembered(self.again.layers, memory)
            logits = self.head(decoder(self.embedding(tokens), wanted, kept, lengths))
            with torch.no_grad():
                tokens = torch.where(places < wanted[:, None], logits.argmax(-1), PAD)
            found.append((logits, tokens))
        return found

    def judged(
        self, logits: torch.Tensor, said: torch.Tensor, target: torch.Tensor, wanted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`each_cross_entropy` of one time."""
        return each_cross_entropy(logits, target, wanted, said)

    @torch.no_grad()
    def translated(self, source: torch.Tensor, lengths: torch.Tensor, width: int, times: int) -> torch.Tensor:
        """[batch, width] symbols, and `PAD` behind each target's own end."""
        memory, offsets = self.encoded(source, lengths)
        wanted = (lengths + offsets.argmax(-1) - OFFSETS).clamp(1, width)
        logits, _ = self.said(source, lengths, memory, wanted, width, times)[-1]
        logits[..., : PAD + 1] = -torch.inf  # padding is no symbol to say
        places = torch.arange(width, device=source.device)
        return torch.where(places < wanted[:, None], logits.argmax(-1), PAD)
