"""A training step, run again and again over an epoch's data that lies on the device.

A step takes its part of the data by a counter on the device, and leaves loss and metric in buffers there: the
host copies nothing in and reads nothing out before the epoch ends. So a whole step, from the data to the
optimiser, can be one CUDA graph (`capture`): at the sizes of the paper's copy task launching its kernels
takes longer than running them. A graph replays the very kernels of the plain step. It was chosen over
torch.compile's reduce-overhead, which would also fuse the model's own operations and so change what is
compared, and which leaves the optimiser out of the graph.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtbench.inputs import Array
from mtbench.training.optimizer import clip_each, make_optimizer, set_lr
from mtbench.training.settings import Job
from mtbench.training.tasks import Task

__all__ = ["Epoch", "Stepper"]

WARM_UP = 3
"""Steps that are run plainly before one is captured, and before each of those that follow a new learning
rate: they are steps of the training like all others."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch's steps left, an entry each."""

    loss: list[float]
    metric: list[float]
    seconds: list[float]
    """On a GPU by CUDA events around each step, in the order of its stream; on a CPU by the host's clock."""
    captured: int
    """How many of them were replays of a CUDA graph."""


class Stepper:
    """The steps of one job."""

    def __init__(self, job: Job, task: Task, model: nn.Module) -> None:
        self.job, self.task, self.model = job, task, model
        self.device = torch.device(job.kernels.device)
        self.optimizer = make_optimizer(model, job.optimization, capturable=job.kernels.capture)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        count = job.schedule.iterations
        self._at = torch.zeros(1, dtype=torch.long, device=self.device)
        self._loss, self._metric = (torch.zeros(count, device=self.device) for _ in range(2))
        self._data: dict[str, torch.Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured_lr: float | None = None
        # Of its plain steps and of its graphs. What cuBLAS works in belongs to a stream: had a graph's
        # capture to make it, it would lie in that graph's memory, and outlive it.
        self._stream = torch.cuda.Stream() if job.kernels.capture else None

    def load(self, data: Mapping[str, Array]) -> None:
        """An epoch's data to the device, into the tensors of the epoch before: a captured step knows
        those."""
        for name, array in data.items():
            tensor = torch.from_numpy(array)
            if name not in self._data:
                self._data[name] = torch.empty_like(tensor, device=self.device)
            self._data[name].copy_(tensor)
        self.rewind()

    def rewind(self) -> None:
        """To the first step of what is loaded."""
        self._at.zero_()

    def start(self, lr: float) -> _Clock:
        """Start all steps of the epoch that is loaded, at that learning rate; `finish` waits for them."""
        self.model.train()
        set_lr(self.optimizer, lr)
        if self._captured_lr != lr:
            self._graph = None  # a graph holds the learning rate it was captured with
        clock = _Clock(self.device)
        for at in range(self.job.schedule.iterations):
            if self.job.kernels.capture and at == WARM_UP and self._graph is None:
                self._capture(lr)
            clock.begin()
            if self._graph is not None:
                self._graph.replay()
                clock.replays += 1
            elif self.job.kernels.capture:
                self._aside()
            else:
                self._step()
            clock.end()
        return clock

    def finish(self, clock: _Clock) -> Epoch:
        """What the steps left, when they have run."""
        seconds = clock.seconds()
        loss, metric = self._loss.tolist(), self._metric.tolist()
        return Epoch(loss=loss, metric=metric, seconds=seconds, captured=clock.replays)

    def evaluate(self, data: Mapping[str, Array]) -> tuple[float, float]:
        """Mean loss and metric over the steps of the data, without dropout."""
        self.model.eval()
        total = torch.zeros(2, device=self.device, dtype=torch.float64)
        steps = len(next(iter(data.values())))
        with torch.no_grad():
            on_device = {name: torch.from_numpy(array).to(self.device) for name, array in data.items()}
            for at in range(steps):
                with self._precision():
                    loss, metric = self.task.loss(self.model, {n: t[at] for n, t in on_device.items()})
                total += torch.stack((loss, metric))
        loss_mean, metric_mean = (total / steps).tolist()
        return loss_mean, metric_mean

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.job.kernels.precision != "bfloat16":
            return contextlib.nullcontext()
        # Its cache of cast weights would hold tensors of another step's graph.
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def _step(self) -> None:
        """One step, whose every operation is the device's: no number of it is looked at here."""
        batch = {name: tensor.index_select(0, self._at)[0] for name, tensor in self._data.items()}
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss, metric = self.task.loss(self.model, batch)
        loss.backward()
        if self.job.optimization.clip is not None:
            clip_each(self._parameters, self.job.optimization.clip)
        self.optimizer.step()
        self._loss.index_copy_(0, self._at, loss.detach().reshape(1).float())
        self._metric.index_copy_(0, self._at, metric.detach().reshape(1).float())
        self._at.add_(1)

    def _aside(self) -> None:
        """A plain step on the stream that is to capture one, as that wants it."""
        stream = self._stream
        assert stream is not None  # noqa: S101  (only a job that captures comes here)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # It is about to be captured.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self._step()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, lr: float) -> None:
        """Hold a step as a graph. Capturing runs nothing: parameters, counters and random numbers stay."""
        self._graph = None
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._step()
        self._graph, self._captured_lr = graph, lr


class _Clock:
    """Seconds of each step: by CUDA events, which the host does not wait for, or by the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self.replays = 0
        self._gpu = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []
        self._began: Any = None

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def begin(self) -> None:
        self._began = self._now()

    def end(self) -> None:
        self._marks.append((self._began, self._now()))

    def seconds(self) -> list[float]:
        if not self._gpu:
            return [end - began for began, end in self._marks]
        torch.cuda.synchronize()
        return [began.elapsed_time(end) / 1000 for began, end in self._marks]
