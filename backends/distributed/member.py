"""One rank of `torch-distributed`: its part of the arrays, a call, and what the call sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from mtbench.inputs import Array, Inputs
from mtbench.spec import Case

from .exchange import Exchange
from .places import Place, evenly, pieces_of
from .replay import Replay
from .ring import Ring
from .scan import Scan

__all__ = ["TorchMember", "join", "pieces"]

GRAIN = {"fused": 128, "chunked": 1}
"""Of a rank's positions: what comes back from behind must meet the Triton kernels at a chunk's end."""


def join(device: str, rank: int, ranks: int, rendezvous: str) -> None:
    """Become one of a process group: NCCL on GPUs, one a rank, gloo on a CPU. It lasts as long as the
    process."""
    if device == "cuda":
        torch.cuda.set_device(rank)
        # Multicast takes the host's switch for itself, which others may share; nothing here needs it.
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    elif sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=ranks,
        device_id=torch.device("cuda", rank) if device == "cuda" else None,
    )


def pieces(
    case: Case, form: str, lengths: tuple[int, ...] | None = None
) -> list[tuple[tuple[int, int], ...]]:
    """The positions of every rank. A causal softmax's are two pieces, so that the ranks have as much to do.

    Args:
        case: of the whole sequence.
        form: ``fused`` or ``chunked``.
        lengths: of the ranks' parts, where they are not to be even.
    """
    ranks = case.world_size
    if case.spec.kind == "softmax" and case.spec.causal and lengths is None:
        return [pieces_of(case.seq_len, ranks, rank) for rank in range(ranks)]
    lengths = lengths or evenly(case.seq_len, ranks, 1 if case.spec.kind == "softmax" else GRAIN[form])
    return [(Place(rank, lengths).piece,) for rank in range(ranks)]


class TorchMember:
    """See `mtbench.ranks.member.Member`. The process has joined.

    Args:
        case: the whole sequence's.
        form: ``fused`` or ``chunked``.
        lengths: of the ranks' parts; None: as even as they can be.
        groups, segments: see `Scan`.
    """

    layout = "bhnd"

    def __init__(
        self,
        case: Case,
        form: str,
        *,
        lengths: tuple[int, ...] | None = None,
        groups: int | None = None,
        segments: int | None = None,
    ) -> None:
        if form == "fused":
            from ..triton.launch import enter

            enter(case.device)
        self._case, self._exchange = case, Exchange(case.device)
        every = pieces(case, form, lengths)
        self.pieces = every[self._exchange.rank]
        self._side: Ring | Scan
        if case.spec.kind == "softmax":
            self._side = Ring(case, every, self._exchange, form)
            self.config: Mapping[str, Any] = {"algorithm": "ring", "local": form, "captured": False}
        else:
            whole = tuple(last - first for ((first, last),) in every)
            place = Place(self._exchange.rank, whole)
            self._side = Scan(case, place, self._exchange, form, groups=groups, segments=segments)
            chosen = {"groups": self._side.groups, "captured": case.device == "cuda"}
            self.config = {"algorithm": "states", "local": form, **chosen}
        self._replay: Replay | None = None
        self._inputs: dict[str, list[torch.Tensor]] = {}

    def load(self, inputs: Inputs) -> None:
        """See `Member.load`."""
        from mtbench.frameworks.torch import to_tensor

        self._inputs, self._replay = {}, None  # the last case's go before these come
        for name in ("q", "k", "v", "do"):
            array: Array | None = getattr(inputs, name)
            if array is not None:
                device = self._case.device
                self.hold(name, [to_tensor(array[:, :, first:last], device) for first, last in self.pieces])

    def hold(self, name: str, parts: list[torch.Tensor]) -> None:
        """Take ``q``, ``k``, ``v`` or ``do`` as they are, contiguous [batch, heads, positions, dim], one for
        each of the rank's pieces."""
        self._inputs[name], self._replay = parts, None

    def __call__(self) -> dict[str, list[torch.Tensor]]:
        """See `Member.__call__`."""
        side, given = self._side, self._inputs
        with torch.no_grad():
            if isinstance(side, Ring):
                rows, kept = side.forward(given["q"], given["k"], given["v"])
                names = {"o": list(rows)}
                if self._case.mode == "forward_backward":
                    found = side.backward(kept, given["do"])
                    names |= {name: list(x) for name, x in zip(("dq", "dk", "dv"), found, strict=True)}
                return names
            o, kept = side.forward(*(given[name][0] for name in ("q", "k", "v")))
            names = {"o": [o]}
            if self._case.mode == "forward_backward":
                grads = side.backward(kept, given["do"][0])
                names |= {name: [x] for name, x in zip(("dq", "dk", "dv"), grads, strict=True)}
            return names

    def repeated(self) -> Callable[[], Any]:
        """See `Member.repeated`. On GPUs the exchange of states is a graph with the kernels around it; the
        ring's steps are long enough for the host to stay ahead of them."""
        if not self.config["captured"]:
            return self
        if self._replay is None:
            self._replay = Replay(self)
        return self._replay

    def wait(self, result: Any) -> None:
        """See `Member.wait`."""
        if self._case.device == "cuda":
            torch.cuda.synchronize()

    def outputs(self, result: dict[str, list[torch.Tensor]]) -> dict[str, list[Array]]:
        """See `Member.outputs`."""
        from mtbench.frameworks.torch import to_numpy

        return {name: [to_numpy(x) for x in parts] for name, parts in result.items()}

    def barrier(self) -> None:
        """See `Member.barrier`."""
        self._exchange.barrier()

    def metered(self) -> tuple[int, float]:
        """See `Member.metered`."""
        self.barrier()
        self._exchange.meter()
        self.wait(self())
        return self._exchange.sent_bytes, self._exchange.exposed_ms()
