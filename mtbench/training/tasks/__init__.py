"""The tasks, a module each, and what a task is.

A task is one class: its data, its model's sizes, its loss and metric, and what the paper says of it. To add
one, write a module with a ``TASK`` and name it in `TASKS`. Importing it must load no framework: what needs
torch imports it inside of `Task.model` and `Task.loss`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from mtbench.errors import BadInput, nearest
from mtbench.inputs import Array
from mtbench.training.metric import Metric
from mtbench.training.published import Published
from mtbench.training.settings import Preset, Schedule
from mtbench.transformer.config import ModelConfig, ModelSize, Momenta

__all__ = ["TASKS", "Task", "load_task"]

TASKS: Mapping[str, str] = {name: f"mtbench.training.tasks.{name}" for name in ("copy", "listops")}
"""By name, the module of each."""


class Task(ABC):
    """A thing to learn."""

    name: ClassVar[str]
    title: ClassVar[str]
    """As a page's heading has it."""
    metric: ClassVar[Metric]
    """What `loss` gives beside the loss."""
    causal: ClassVar[bool]
    """Whether its model's self-attention is, for what a backend does is checked before anything starts."""
    presets: ClassVar[Mapping[str, Preset]]
    """``paper`` and ``short``, and others that the task has."""
    momenta: ClassVar[Momenta]
    """The paper's, of this task."""
    published: ClassVar[Published | None] = None

    held_out_of: ClassVar[str] = "batches"
    """What the values are of that `evaluated` gives."""

    def open(self, data: str | None) -> Self:
        """The task with its data, from a folder. One that makes its data is itself, and needs none.

        Raises:
            BadInput: the data is not there, or is not what it should be; the line says what to put where.
        """
        if data is not None:
            raise BadInput(f"--data {data}: the task {self.name} makes its own data: leave it out")
        return self

    def fingerprints(self) -> Mapping[str, str]:
        """Of an opened task, a digest of each file it has read, by its name."""
        return {}

    @abstractmethod
    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """Raises BadInput where the sizes do not fit the task."""

    @abstractmethod
    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Mapping[str, Array]:
        """The data of one epoch, or what is held out from every epoch (then `epoch` says nothing): arrays
        whose first axis is the step, and whose second is the batch.

        It depends on its arguments alone, so that every variant of a seed sees the same, and so does a
        training that goes on where it was cut off.
        """

    @abstractmethod
    def model(self, config: ModelConfig, attend: Any) -> Any:
        """The torch.nn.Module to be trained; `attend` is its attention (`mtbench.transformer.attention`)."""

    @abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """The mean loss of one step's tensors and the metric, both of no dimension, on the device."""

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """The same of held-out data, [values] each: of the whole batch one, or of each of its sequences. The
        mean over all of them is what counts."""
        loss, metric = self.loss(model, batch)
        return loss.reshape(1), metric.reshape(1)


def load_task(name: str) -> Task:
    """The task of that name.

    Raises:
        BadInput: there is none; the line names those that are there.
    """
    if name not in TASKS:
        raise BadInput(f"unknown task {name!r}: {nearest(name, TASKS)}")
    task: Task = importlib.import_module(TASKS[name]).TASK
    return task
