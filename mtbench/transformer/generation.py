"""A decoder one token at a time: with constant memory where its attention is linear or momentum.

A decoder of ``momentum-released`` is trained with the weights of eq 14 and generates, as the released code
does, by the recurrence of eq 12, which is another function: its logits here are not those of its forward.

>>> from mtbench.transformer.config import ModelConfig, ModelSize
>>> from mtbench.transformer.model import Transformer
>>> from mtbench.transformer.plain import plain_attention
>>> size = ModelSize(vocabulary=5, max_len=32, d_model=8, layers=1, heads=2, head_dim=4, feed_forward=8)
>>> model = Transformer(ModelConfig(size=size), plain_attention, causal=True)
>>> generate(model, torch.tensor([[1, 2, 3]]), 4).shape
torch.Size([1, 7])
"""

from __future__ import annotations

import torch

from mtbench.errors import BadInput
from mtbench.spec import AttentionSpec
from mtbench.transformer.attention import MultiHeadAttention
from mtbench.transformer.layers import CrossLayer, remembered
from mtbench.transformer.model import EncoderDecoder, Transformer
from mtbench.transformer.recurrent import Memory, past

__all__ = ["Decoding", "generate", "translate"]


class Decoding:
    """A batch of sequences on their way. The model is put into evaluation, without dropout."""

    def __init__(
        self,
        model: Transformer | EncoderDecoder,
        source: torch.Tensor | None = None,
        source_lengths: torch.Tensor | None = None,
    ) -> None:
        """At the first token.

        Args:
            model: a causal `Transformer`, or an `EncoderDecoder`.
            source: what an encoder reads, [batch, source_len]; of an `EncoderDecoder` alone.
            source_lengths: how many of its symbols are real, [batch].

        Raises:
            BadInput: an encoder, which sees all tokens at once; attention without normaliser; or a source
                where there is no encoder, or none where there is one.
        """
        if isinstance(model, Transformer) and not model.causal:
            raise BadInput("an encoder sees all tokens at once: generate with a causal model")
        if isinstance(model, EncoderDecoder) != (source is not None):
            raise BadInput("a source goes with an encoder-decoder, and an encoder-decoder with a source")
        if model.config.bare:
            raise BadInput(
                f"{model.config.attention}: attention without normaliser is written for whole sequences, and "
                "not for one token at a time"
            )
        self.model = model.eval()
        self.position = 0
        self.pasts = [past(_recurrent_spec(layer.attention)) for layer in model.layers]
        self._memories: list[Memory] = []
        if isinstance(model, EncoderDecoder) and source is not None:
            with torch.no_grad():
                memory = model.encoder.encoded(source, source_lengths)
                for layer, (k, v) in zip(model.layers, remembered(model.layers, memory), strict=True):
                    heads = k.transpose(1, 2), v.transpose(1, 2)
                    self._memories.append(Memory(layer.cross.spec, *heads, source_lengths))

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take in the next token of each sequence, [batch]; logits of the one after it, [batch,
        vocabulary]."""
        model = self.model
        x = model.embedding(tokens[:, None], self.position)[:, 0]
        state = model.layers[0].connection.start(x)
        for index, (layer, before) in enumerate(zip(model.layers, self.pasts, strict=True)):
            mixed = before.step(*layer.attention.together(x))
            if isinstance(layer, CrossLayer):
                y, q, state = layer.asked(x, mixed, state)
                x = layer.answered(y, self._memories[index].read(q))
            else:
                x, state = layer.finished(x, mixed, state)
        self.position += 1
        return model.head(model.norm(x))  # type: ignore[no-any-return]

    @property
    def numbers(self) -> int:
        """How many numbers the tokens so far left behind, in all layers."""
        return sum(layer.numbers for layer in self.pasts)


def _recurrent_spec(attention: MultiHeadAttention) -> AttentionSpec:
    """Eq 12 where the forward has the weights of eq 14."""
    return attention.momentum_spec if attention.weighted else attention.spec


def generate(
    model: Transformer | EncoderDecoder,
    prompt: torch.Tensor,
    count: int,
    source: torch.Tensor | None = None,
    source_lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """The prompt [batch, n], n >= 1, and the `count` symbols that follow it, each the likeliest: [batch, n +
    count].

    Raises:
        BadInput: as `Decoding`, or more positions than the model has encodings of.
    """
    if prompt.shape[1] + count > model.config.size.max_len:
        raise BadInput(
            f"{prompt.shape[1]} + {count} symbols are more than the {model.config.size.max_len} positions "
            "of the model: give it a larger max_len"
        )
    decoding = Decoding(model, source, source_lengths)
    tokens = list(prompt.unbind(1))
    for at in range(prompt.shape[1] + count - 1):
        logits = decoding.step(tokens[at])
        if at + 1 >= prompt.shape[1]:
            tokens.append(logits.argmax(-1))
    return torch.stack(tokens, 1)


LOOKS = 8
"""Tokens between two looks at whether all sentences have ended: each waits for the device."""


@torch.no_grad()
def translate(
    model: EncoderDecoder,
    source: torch.Tensor,
    source_lengths: torch.Tensor,
    *,
    begin: int,
    end: int,
    most: int,
) -> torch.Tensor:
    """The likeliest symbol after the likeliest, until each sentence has said `end`, or for `most` symbols.

    Args:
        model: what translates.
        source: [batch, source_len] symbols.
        source_lengths: how many of them are real, [batch].
        begin: what every target begins with, which is not in what is returned.
        end: what it ends with.
        most: symbols of a target at most.

    Returns:
        [batch, n] symbols, n <= most; `end` from where a sentence ends on.
    """
    decoding = Decoding(model, source, source_lengths)
    token = torch.full((len(source),), begin, dtype=torch.long, device=source.device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    said = []
    for at in range(most):
        token = decoding.step(token).argmax(-1).masked_fill(ended, end)
        ended = ended | (token == end)
        said.append(token)
        if at % LOOKS == LOOKS - 1 and bool(ended.all()):
            break
    return torch.stack(said, 1)
