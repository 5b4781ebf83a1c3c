"""The decoding kernels as `mtbench.backend.Decoder`."""

from __future__ import annotations

from typing import Any

import torch

from mtbench.errors import BadInput
from mtbench.spec import Case

from . import decode, decode_softmax

__all__ = ["TritonDecoder", "decoder"]


class TritonDecoder:
    """A state of `decode`, or a cache of `decode_softmax`, and the spec that it is of."""

    def __init__(self, case: Case) -> None:
        """See `mtbench.backend.Decodes.decoder`."""
        self._spec = case.spec
        sizes: dict[str, Any] = {
            name: getattr(case, name) for name in ("batch", "heads", "head_dim", "value_dim")
        }
        self._kept: decode.DecodeState | decode_softmax.Cache
        if case.spec.kind == "softmax":
            dtype: torch.dtype = getattr(torch, case.dtype)
            self._kept = decode_softmax.empty_cache(
                room=case.seq_len, dtype=dtype, device=case.device, **sizes
            )
        else:
            self._kept = decode.empty_state(case.spec, device=case.device, **sizes)

    def step(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `mtbench.backend.Decoder.step`."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        if isinstance(self._kept, decode_softmax.Cache):
            return decode_softmax.step(self._spec, q, k, v, self._kept)
        return decode.step(self._spec, q, k, v, self._kept)

    def clear(self) -> None:
        """See `mtbench.backend.Decoder.clear`. What a cache held is not wiped: nothing reads it."""
        kept = self._kept
        for tensor in (kept.taken,) if isinstance(kept, decode_softmax.Cache) else kept:
            if tensor is not None:
                tensor.zero_()

    @property
    def held_bytes(self) -> int:
        """See `mtbench.backend.Decoder.held_bytes`."""
        return sum(tensor.nbytes for tensor in self._kept if tensor is not None)


def decoder(case: Case) -> TritonDecoder:
    """That of a causal case.

    Raises:
        BadInput: attention that is not causal, grouped heads, or dims past the largest.
    """
    if not case.spec.causal or case.kv_heads != case.heads:
        raise BadInput("the decoding kernels are for causal attention with as many heads of keys as queries")
    return TritonDecoder(case)
