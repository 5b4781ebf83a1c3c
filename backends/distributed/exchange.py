"""What ranks send each other: it goes on while the caller works, is counted and, where asked for, timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Exchange", "Pending"]


class Exchange:
    """One rank's end. `torch.distributed` is initialised.

    Args:
        device: ``cuda`` or ``cpu``, where the tensors lie.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.sent_bytes = 0
        """By this rank so far."""
        self._cuda = device == "cuda"
        self._metered = False
        self._waits: list[Any] = []

    def gather(self, mine: torch.Tensor) -> Pending:
        """All ranks' tensors of that size, [ranks, numbers], in the end; this rank's goes to each other."""
        every = mine.new_empty(self.ranks * mine.numel())
        self.sent_bytes += (self.ranks - 1) * mine.numel() * mine.element_size()
        # torch 2.13 gave it another name, and deprecated the old one.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        work = gather(every, mine, async_op=True)
        return Pending(self, [work], every.view(self.ranks, -1), [mine])

    def pass_on(self, mine: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> Pending:
        """Send tensors to the next rank, and give what the one before sends, which `theirs` has room for."""
        if self.ranks == 1:  # the next one is oneself
            return Pending(self, [], mine, mine)
        after, before = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks
        self.sent_bytes += sum(tensor.numel() * tensor.element_size() for tensor in mine)
        work = dist.batch_isend_irecv(
            [
                *(dist.P2POp(dist.isend, tensor, after) for tensor in mine),
                *(dist.P2POp(dist.irecv, tensor, before) for tensor in theirs),
            ]
        )
        return Pending(self, work, theirs, mine)

    def barrier(self) -> None:
        """Until all ranks are here, and their devices idle."""
        if self._cuda:
            torch.cuda.synchronize()
        dist.barrier()
        if self._cuda:
            torch.cuda.synchronize()

    def meter(self) -> None:
        """From now on take the time of waiting, and count from 0."""
        self._metered, self.sent_bytes, self._waits = True, 0, []

    def exposed_ms(self) -> float:
        """How long the work has stood still for what others sent, since `meter`, which ends."""
        self._metered = False
        if self._cuda:
            torch.cuda.synchronize()
            return float(sum(begin.elapsed_time(end) for begin, end in self._waits))
        return float(sum(self._waits))

    def wait(self, work: Sequence[Any]) -> None:
        """On a GPU the stream waits and the caller goes on."""
        if self._metered and self._cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for one in work:
                one.wait()
            end.record()
            self._waits.append((begin, end))
            return
        began = time.perf_counter()
        for one in work:
            one.wait()
        if self._metered:
            self._waits.append((time.perf_counter() - began) * 1e3)


class Pending:
    """What is under way."""

    def __init__(
        self, exchange: Exchange, work: Sequence[Any], filled: Any, sent: Sequence[torch.Tensor]
    ) -> None:
        self._exchange, self._work, self._filled = exchange, work, filled
        # NCCL reads it on a stream of its own: the allocator may give it away once this stream has waited.
        self._sent = sent

    def wait(self) -> Any:
        """What was filled, once it is."""
        self._exchange.wait(self._work)
        self._sent = ()
        return self._filled
