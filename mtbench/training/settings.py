"""What one training is: how long, on how much, with which optimiser and kernels. Imports no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from mtbench.errors import BadInput, nearest
from mtbench.transformer.config import ModelConfig, ModelSize

__all__ = ["PRECISIONS", "Job", "Kernels", "Optimization", "Precision", "Preset", "Schedule"]

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """RAdam (torch.optim.RAdam) and how it is driven.

    Raises:
        BadInput: a learning rate that is not a positive finite number.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    """Decoupled: parameters shrink by lr times it a step, as in the released code's RAdam."""
    clip: float | None = 1.0
    """The largest norm of the gradient of one parameter (a tensor), as in the released code's RAdam; None:
    any."""
    drop_epoch: int | None = None
    """Epochs after which lr is divided, or None."""
    drop: float = 10.0

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise BadInput(f"lr = {self.lr} must be a positive finite number")

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, from 0.

        >>> [Optimization(drop_epoch=30).lr_at(epoch) for epoch in (0, 29, 30)]
        [0.001, 0.001, 0.0001]
        """
        return self.lr / self.drop if self.drop_epoch is not None and epoch >= self.drop_epoch else self.lr


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, in which pieces.

    Raises:
        BadInput: a count below 1.
    """

    epochs: int
    iterations: int
    """Steps of an epoch."""
    batch: int
    """Sequences of a step."""
    seq_len: int
    evaluations: int = 20
    """Times that held-out data is looked at in whole, evenly over the epochs, the last one included; at most
    one an epoch."""
    evaluation_batches: int = 20

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value < 1:
                raise BadInput(f"{part.name.replace('_', '-')} = {value} must be at least 1")

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch * self.seq_len

    def evaluates(self, epoch: int) -> bool:
        """Whether held-out data is looked at in whole after that epoch, from 0.

        >>> made = Schedule(epochs=10, iterations=1, batch=1, seq_len=8, evaluations=3)
        >>> [epoch for epoch in range(10) if made.evaluates(epoch)]
        [3, 6, 9]
        """
        return (epoch + 1) * self.evaluations // self.epochs > epoch * self.evaluations // self.epochs


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A task's sizes under a name."""

    why: str
    """What they are good for, and where they come from."""
    size: ModelSize
    schedule: Schedule
    optimization: Optimization


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What computes: of an attention kind of the spec, the backend and the form of it.

    Raises:
        BadInput: an unknown precision.
    """

    backends: Mapping[str, str] = field(default_factory=lambda: {"": "torch-eager"})
    """A backend by attention kind; the empty kind is for all that are not named."""
    forms: Mapping[str, str] = field(default_factory=dict)
    """A form in the same way; none is the backend's first that does the case."""
    device: str = "cpu"
    precision: Precision = "float32"
    """``tf32``: matrix products of float32 in TF32; ``bfloat16``: under autocast, float32 parameters."""
    capture: bool = False
    """Whether a step is one CUDA graph."""
    compiled: bool = False
    """Whether what is not attention is fused by torch.compile (`mtbench.transformer.fused`)."""
    threads: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise BadInput(f"unknown precision {self.precision!r}: {nearest(self.precision, PRECISIONS)}")

    def backend(self, kind: str) -> str:
        """That of an attention kind of the spec."""
        return self.backends.get(kind) or self.backends.get("") or "torch-eager"

    def form(self, kind: str) -> str | None:
        """The form, or None where the backend chooses."""
        return self.forms.get(kind) or self.forms.get("")

    @property
    def dtype(self) -> str:
        """Of the attention's operands."""
        return "bfloat16" if self.precision == "bfloat16" else "float32"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a variant with a seed."""

    task: str
    variant: str
    seed: int
    model: ModelConfig
    schedule: Schedule
    optimization: Optimization
    kernels: Kernels
    data: str | None = None
    """The folder of the task's data, where it has one."""

    @property
    def id(self) -> str:
        """A readable key that no two of a run share.

        >>> Job.name("momentum+adaptive", 2)
        'momentum+adaptive-seed2'
        """
        return self.name(self.variant, self.seed)

    @staticmethod
    def name(variant: str, seed: int) -> str:
        """The `id` of a variant with a seed."""
        return f"{variant}-seed{seed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The job that `to_dict` wrote."""
        return cls(
            task=data["task"],
            variant=data["variant"],
            seed=data["seed"],
            model=ModelConfig.from_dict(data["model"]),
            schedule=Schedule(**data["schedule"]),
            optimization=Optimization(**data["optimization"]),
            kernels=Kernels(**data["kernels"]),
            data=data.get("data"),
        )
