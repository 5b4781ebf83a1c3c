"""A rank's call, its kernels and its collectives, as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Replay"]


class Replay:
    """The call again, into the same outputs each time, started by the host in one piece.

    Started one by one, some twenty kernels and two collectives a pass, the host kept two cards waiting: they
    took 2.85 ms for what one does in 4.01, and take 2.08 as a graph (docs/results/h200-two-gpus).

    Args:
        call: starts the same work on the current stream each time it is called, waits for nothing on the
            host, and returns its outputs. All ranks make theirs at the same time: it is called twice, once
            to run and once to be captured.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Plainly first: what cuBLAS works in belongs to a stream. Had the capture to make it, it would lie
        # in the graph's memory.
        with torch.cuda.stream(stream):
            call()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread alone: NCCL's watchdog asks after its own events from another.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._result = call()
        self()  # the first replay brings the graph to the card
        torch.cuda.synchronize()

    def __call__(self) -> Any:
        """Start it on the current stream; the outputs, which are the last call's too."""
        self._graph.replay()
        return self._result
