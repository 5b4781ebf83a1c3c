"""The tasks, a module each, and what a task is.

A task is one class: its data, its model's sizes, its loss and metric, and what the paper says of it. To add
one, write a module with a ``TASK`` and name it in `TASKS`. Importing it must load no framework: what needs
torch imports it inside of `Task.model` and `Task.loss`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from mtbench.errors import BadInput, nearest
from mtbench.inputs import Array
from mtbench.spec import Case
from mtbench.training.examined import Examined
from mtbench.training.metric import Metric
from mtbench.training.published import Published, Quantity
from mtbench.training.settings import Job, Preset, Schedule
from mtbench.training.variants import DEFAULT_VARIANTS
from mtbench.transformer.config import ModelConfig, ModelSize, Momenta

__all__ = ["TASKS", "Data", "Task", "attention_case", "grouped", "load_task"]

TASKS: Mapping[str, str] = {
    name: f"mtbench.training.tasks.{name.replace('-', '_')}"
    for name in (
        *("copy", "listops", "text", "pathfinder", "translation", "translation-refined"),
        *("digits", "mnist", "cifar10"),
    )
}
"""By name, the module of each."""


Data = Mapping[str, Array] | Sequence[Mapping[str, Array]]
"""Arrays by name, of one shape of batch or of several."""


def grouped(data: Data) -> Sequence[Mapping[str, Array]]:
    """A group a shape."""
    return (data,) if isinstance(data, Mapping) else data


class Task(ABC):
    """A thing to learn."""

    name: ClassVar[str]
    title: ClassVar[str]
    """As a page's heading has it."""
    metric: ClassVar[Metric]
    """What `loss` gives beside the loss."""
    causal: ClassVar[bool]
    """Whether its model's self-attention is, for what a backend does is checked before anything starts."""
    variants: ClassVar[tuple[str, ...]] = DEFAULT_VARIANTS
    """What is trained where nothing else is asked for."""
    presets: ClassVar[Mapping[str, Preset]]
    """``paper`` and ``short``, and others that the task has."""
    momenta: ClassVar[Momenta]
    """The paper's, of this task."""
    published: ClassVar[Published | None] = None

    decoder: ClassVar[bool] = False
    """Whether its model is one causal decoder, of whose operations a page knows the number."""
    scores: ClassVar[tuple[Metric, ...]] = ()
    """What `examined` finds at the end, beside loss and metric."""
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
    ) -> Data:
        """The data of one epoch, or what is held out from every epoch (then `epoch` says nothing): arrays
        whose first axis is the step, and whose second is the batch. Where batches differ in shape, a group of
        arrays for each shape; an epoch's groups are as many, and as large, as every other's.

        It depends on its arguments alone, so that every variant of a seed sees the same, and so does a
        training that goes on where it was cut off.
        """

    @abstractmethod
    def model(self, config: ModelConfig, attend: Any) -> Any:
        """The torch.nn.Module to be trained; `attend` is its attention (`mtbench.transformer.attention`)."""

    @abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """The mean loss of one step's tensors and the metric, both of no dimension, on the device."""

    def cases(self, job: Job) -> tuple[Case, ...]:
        """The attentions that its model computes, forward, for what a backend does is checked before anything
        starts."""
        return (attention_case(job, causal=self.causal),)

    def shared(self, job: Job) -> Mapping[str, bytes]:
        """What all trainings of a run share, made once before the first: files by name, kept in its folder.

        Raises:
            BadInput: it cannot be made of this data.
        """
        return {}

    def given(self, folder: Path) -> Self:
        """The task with the files that `shared` made, from that folder."""
        return self

    def tokens(self, groups: Sequence[Mapping[str, Array]]) -> int | None:
        """How many of an epoch's symbols are no padding; None where all are data."""
        return None

    def examined(self, model: Any, job: Job) -> Examined | None:
        """What else there is to find of a trained model, on the device and in the precision of its job:
        `scores`. Called once, after the last epoch."""
        return None

    def measured(self, quantity: Quantity) -> Metric | None:
        """What is measured by the metric, or by one of the scores; None of another quantity."""
        if quantity == "metric":
            return self.metric
        return next((score for score in self.scores if score.name == quantity), None)

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """The same of held-out data, [values] each: of the whole batch one, or of each of its sequences. The
        mean over all of them is what counts."""
        loss, metric = self.loss(model, batch)
        return loss.reshape(1), metric.reshape(1)


def attention_case(job: Job, *, causal: bool, padded: bool = False, **sizes: Any) -> Case:
    """An attention of a job's model over the schedule's batch and length, or with other `sizes`; padded,
    where sequences have lengths of their own."""
    schedule, size, kernels = job.schedule, job.model.size, job.kernels
    case = Case(
        spec=job.model.spec(causal=causal),
        batch=schedule.batch,
        heads=size.heads,
        seq_len=schedule.seq_len,
        head_dim=size.head_dim,
        dtype=kernels.dtype,  # type: ignore[arg-type]
        device=kernels.device,  # type: ignore[arg-type]
    ).replace(**sizes)
    return case.replace(lengths=(case.kv_len,) * case.batch) if padded else case


def load_task(name: str) -> Task:
    """The task of that name.

    Raises:
        BadInput: there is none; the line names those that are there.
    """
    if name not in TASKS:
        raise BadInput(f"unknown task {name!r}: {nearest(name, TASKS)}")
    task: Task = importlib.import_module(TASKS[name]).TASK
    return task
