"""How images are drawn, and by which backend. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.backend import Decodes, refuse_interpreted
from mtbench.errors import BadInput
from mtbench.registry import load_backend
from mtbench.training.settings import Precision

__all__ = ["OWN", "Drawing", "decoding"]

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


def decoding(how: Drawing) -> Decodes | None:
    """The backend that is asked for; None of `OWN`.

    Raises:
        BadInput: it is unknown, decodes nothing, is only interpreted on the device, or cannot run there.
    """
    if how.backend == OWN:
        return None
    backend = load_backend(how.backend, beside=(OWN,))
    if not isinstance(backend, Decodes):
        raise BadInput(
            f"--backend {how.backend}: it decodes nothing: triton does, and {OWN} is the model's own"
        )
    why, instead = "too slowly to draw with", f"--backend {OWN}, the model's own recurrences"
    refuse_interpreted(backend, how.device, why=why, instead=instead)
    if reason := backend.unavailable(how.device):
        raise BadInput(f"--backend {how.backend} cannot run on {how.device} here: {reason}")
    return backend
