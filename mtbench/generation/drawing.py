"""How images are drawn. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.training.settings import Precision

__all__ = ["OWN", "Drawing"]

OWN = "own"
"""The model's own recurrences in PyTorch (`mtbench.transformer.recurrent`), in place of a backend."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How images are drawn."""

    device: str
    backend: str
    """`OWN`, or a backend that has decoding kernels (`mtbench.backend.Decodes`)."""
    precision: Precision
    captured: bool
    """Whether a pixel's step is one CUDA graph."""
    compiled: bool
    """Whether what is not attention is fused by torch.compile."""
    rounds: int
    """Batches that are drawn and timed."""
    seed: int
