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
from mtbench.training.examined import Examined
from mtbench.training.optimizer import clip_each, make_optimizer, set_lr
from mtbench.training.settings import Job
from mtbench.training.tasks import Data, Task, grouped
from mtbench.transformer.held import in_bfloat16

__all__ = ["Epoch", "Evaluation", "Stepper"]

WARM_UP = 3
"""Steps that are run plainly before one is captured, and before each of those that follow a new learning
rate, of each shape of batch: they are steps of the training like all others."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch's steps left, an entry each."""

    loss: list[float]
    metric: list[float]
    seconds: list[float]
    """On a GPU by CUDA events around each step, in the order of its stream; on a CPU by the host's clock."""
    captured: int
    """How many of them were replays of a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What held-out data says."""

    loss: float
    metric: float
    metric_error: float | None
    """The standard error of the metric, over the values that the task gives (`Task.evaluated`)."""


class Stepper:
    """The steps of one job."""

    def __init__(self, job: Job, task: Task, model: nn.Module) -> None:
        self.job, self.task, self.model = job, task, model
        self.device = torch.device(job.kernels.device)
        self.optimizer = make_optimizer(model, job.optimization, capturable=job.kernels.capture)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        count = job.schedule.iterations
        self._done = torch.zeros(1, dtype=torch.long, device=self.device)
        self._loss, self._metric = (torch.zeros(count, device=self.device) for _ in range(2))
        self._groups: list[_Group] = []
        self._order: list[_Group] = []
        self._captured_lr: float | None = None
        # Of its plain steps and of its graphs. What cuBLAS works in belongs to a stream: had a graph's
        # capture to make it, it would lie in that graph's memory, and outlive it.
        self._stream = torch.cuda.Stream() if job.kernels.capture else None

    def load(self, data: Data) -> None:
        """An epoch's data to the device, into the tensors of the epoch before: a captured step knows
        those."""
        groups = grouped(data)
        if not self._groups:
            self._groups = [_Group(self.device) for _ in groups]
        for group, arrays in zip(self._groups, groups, strict=True):
            group.load(arrays)
        # Each shape's steps evenly over the epoch.
        turns = [
            ((step + 0.5) / group.steps, at)
            for at, group in enumerate(self._groups)
            for step in range(group.steps)
        ]
        self._order = [self._groups[at] for _, at in sorted(turns)]
        self.rewind()

    def rewind(self) -> None:
        """To the first step of what is loaded."""
        self._done.zero_()
        for group in self._groups:
            group.at.zero_()

    def start(self, lr: float) -> _Clock:
        """Start all steps of the epoch that is loaded, at that learning rate; `finish` waits for them."""
        self.model.train()
        set_lr(self.optimizer, lr)
        if self._captured_lr != lr:
            for group in self._groups:
                group.forget()  # a graph holds the learning rate it was captured with
            self._captured_lr = lr
        clock = _Clock(self.device)
        for group in self._order:
            if self.job.kernels.capture and group.plain == WARM_UP and group.graph is None:
                self._capture(group)
            clock.begin()
            if group.graph is not None:
                group.graph.replay()
                clock.replays += 1
            elif self.job.kernels.capture:
                self._aside(group)
                group.plain += 1
            else:
                self._step(group)
            clock.end()
        return clock

    def finish(self, clock: _Clock) -> Epoch:
        """What the steps left, when they have run."""
        seconds = clock.seconds()
        loss, metric = self._loss.tolist(), self._metric.tolist()
        return Epoch(loss=loss, metric=metric, seconds=seconds, captured=clock.replays)

    def evaluate(self, data: Data) -> Evaluation:
        """Mean loss and metric over all of the data, without dropout. A step's data is on the device at a
        time."""
        self.model.eval()
        found = []
        with torch.no_grad(), self._precision():
            for arrays in grouped(data):
                for at in range(len(next(iter(arrays.values())))):
                    batch = {name: torch.from_numpy(x[at]).to(self.device) for name, x in arrays.items()}
                    values = self.task.evaluated(self.model, batch)
                    found.append(torch.stack([x.double() for x in values]))
        loss, metric = torch.cat(found, 1)
        count = len(metric)
        error = (metric.std() / count**0.5).item() if count > 1 else None
        return Evaluation(loss=loss.mean().item(), metric=metric.mean().item(), metric_error=error)

    def examine(self) -> Examined | None:
        """What the task finds of the model as it is, without dropout."""
        self.model.eval()
        with torch.no_grad(), self._precision():
            return self.task.examined(self.model, self.job)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.job.kernels.precision != "bfloat16":
            return contextlib.nullcontext()
        return in_bfloat16(self.model, self.device.type)

    def _step(self, group: _Group) -> None:
        """One step, whose every operation is the device's: no number of it is looked at here."""
        batch = {name: tensor.index_select(0, group.at)[0] for name, tensor in group.data.items()}
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss, metric = self.task.loss(self.model, batch)
        loss.backward()
        if self.job.optimization.clip is not None:
            clip_each(self._parameters, self.job.optimization.clip)
        self.optimizer.step()
        self._loss.index_copy_(0, self._done, loss.detach().reshape(1).float())
        self._metric.index_copy_(0, self._done, metric.detach().reshape(1).float())
        self._done.add_(1)
        group.at.add_(1)

    def _aside(self, group: _Group) -> None:
        """A plain step on the stream that is to capture one, as that wants it."""
        stream = self._stream
        assert stream is not None  # noqa: S101  (only a job that captures comes here)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # It is about to be captured.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            self._step(group)
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, group: _Group) -> None:
        """Hold a step as a graph. Capturing runs nothing: parameters, counters and random numbers stay.

        All shapes' graphs work in one memory: they are replayed one after another, and what a step leaves
        lies elsewhere.
        """
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for other in self._groups if other.graph is not None), None)
        with torch.cuda.graph(graph, pool=pool, stream=self._stream):
            self._step(group)
        group.graph = graph


class _Group:
    """The steps of one shape of batch: their data on the device, how many of it are done, and their graph."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.data: dict[str, torch.Tensor] = {}
        self.steps = 0
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.plain = 0
        """Plain steps since the learning rate last changed."""

    def load(self, arrays: Mapping[str, Array]) -> None:
        """See `Stepper.load`."""
        for name, array in arrays.items():
            tensor = torch.from_numpy(array)
            if name not in self.data:
                self.data[name] = torch.empty_like(tensor, device=self.device)
            self.data[name].copy_(tensor)
            self.steps = len(tensor)

    def forget(self) -> None:
        """Capture anew."""
        self.graph, self.plain = None, 0


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
