"""Images of a `PixelTransformer`, a pixel at a time.

All that a pixel's step reads and writes lies in tensors that stay where they are, the number of the pixel
among them: one CUDA graph is every pixel's step, from the embedding of the pixel before to the draw.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from mtbench.errors import BadInput
from mtbench.spec import AttentionSpec
from mtbench.transformer.fused import compile_parts
from mtbench.transformer.logistics import draw_levels, level_log_probability
from mtbench.transformer.pixels import START, PixelTransformer

__all__ = ["PastOf", "Sampler"]

WARM_UP = 3
"""Steps that are run plainly before one is captured."""


class Kept(Protocol):
    """What a layer's attention keeps: `mtbench.transformer.recurrent.Past` and `mtbench.backend.Decoder`."""

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """A token, [batch, heads, dim] each."""

    def clear(self) -> None:
        """Before the first token again."""

    @property
    def held_bytes(self) -> int:
        """The memory of its tensors."""


PastOf = Callable[[AttentionSpec], Kept]
"""Makes what a layer keeps, for the sampler's batch and number of pixels."""


class Sampler:
    """A batch of images on their way."""

    def __init__(
        self,
        model: PixelTransformer,
        past_of: PastOf,
        batch: int,
        *,
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        """Before the first pixel. The model is the sampler's own from now on: it is put into evaluation.

        Args:
            model: on its device.
            past_of: makes what a layer's attention keeps.
            batch: images at a time.
            bfloat16: matrix products in bfloat16, as autocast has them; the weights are rounded once, the
                residual stream and the norms stay float32, and so does the head.
            compiled: fuse what is not attention by torch.compile.

        Raises:
            BadInput: a model that is trained with eq 14's weights generates by eq 12, which is another
                function, so that nobody could say what it draws from.
        """
        if any(layer.attention.weighted for layer in model.layers):
            raise BadInput(
                "momentum-released is trained with the weights of eq 14 and would generate by eq 12, which "
                "is another function: generate from a momentum checkpoint"
            )
        if model.config.bare:
            raise BadInput(
                f"{model.config.attention} has no normaliser, which the recurrences of a token have: "
                "generate from another checkpoint"
            )
        self.model, self.batch, self._bfloat16 = model.eval(), batch, bfloat16
        if bfloat16:
            for module in model.layers.modules():  # type: ignore[attr-defined]
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)
        self._drawn = self._draw
        if compiled:
            compile_parts(model)
            self._drawn = torch.compile(self._draw, fullgraph=True, dynamic=False)
        self.pasts = [past_of(layer.attention.spec) for layer in model.layers]
        device = model.head.weight.device
        self.device = device
        self.positions = model.config.size.max_len
        self._at = torch.zeros(1, dtype=torch.long, device=device)
        self._level = torch.full((batch,), START, dtype=torch.long, device=device)
        self._pixels = torch.zeros((self.positions, batch), dtype=torch.uint8, device=device)
        self._nats = torch.zeros(batch, dtype=torch.float64, device=device)
        self._graph: Any = None

    def restart(self) -> None:
        """Before the first pixel again."""
        self._at.zero_()
        self._level.fill_(START)
        self._nats.zero_()
        for past in self.pasts:
            past.clear()

    @torch.no_grad()
    def capture(self) -> None:
        """Hold a step as a CUDA graph. What it draws from then on are the random numbers of torch's generator
        all the same."""
        # Both on one stream: what cuBLAS works in belongs to a stream. Had the capture to make it, it would
        # lie in the graph's memory, and outlive it.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(min(WARM_UP, self.positions)):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.restart()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._step()
        self.restart()

    @torch.no_grad()
    def run(self, pixels: int) -> None:
        """The next so many pixels of every image."""
        for _ in range(pixels):
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()

    @property
    def pixels(self) -> torch.Tensor:
        """What was drawn, [batch, positions] uint8; 0 from where it has come to."""
        return self._pixels.T.contiguous()

    @property
    def nats(self) -> torch.Tensor:
        """The logarithm of the probability of what was drawn, as the sampler saw it, [batch] float64."""
        return self._nats.clone()

    @property
    def held_bytes(self) -> int:
        """The memory of what the attention keeps, in all layers."""
        return sum(past.held_bytes for past in self.pasts)

    def _step(self) -> None:
        """One pixel, whose every operation is the device's: no number of it is looked at here."""
        model = self.model
        with self._precision():
            encoding = model.embedding.positions.index_select(0, self._at).expand(self.batch, -1)
            x = torch.cat((model.embedding.symbols(self._level), encoding), -1)
            state = model.layers[0].connection.start(x)
            for layer, past in zip(model.layers, self.pasts, strict=True):
                # Rounded once, as autocast would three times. Three products: the kernels that decode want
                # their operands in a row, and one product would have to be cut.
                inner = x.to(torch.bfloat16) if self._bfloat16 else x
                q, k, v = layer.attention.projected(inner)
                x, state = layer.finished(x, past.step(q, k, v), state)
            level, nats = self._drawn(x, torch.rand(self.batch, 2, device=self.device))
        self._level.copy_(level)
        self._nats.add_(nats)
        self._pixels.index_copy_(0, self._at, level[None].to(torch.uint8))
        self._at.add_(1)

    def _draw(self, x: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A level of each image's next pixel, and the logarithm of its probability."""
        mixture = self.model.mixture(self.model.norm(x))
        level = draw_levels(mixture, uniform)
        return level, level_log_probability(mixture, level)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self._bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)
