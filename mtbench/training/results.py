"""A training run's folder, read: what each job left, epoch by epoch. Imports no framework.

It holds ``run.json`` (kind ``training``), ``epochs.jsonl`` (a line an epoch of a job, with an entry a step,
flushed as the epoch ends; of a run that is kept, it may be packed by gzip), ``checkpoints/`` and ``logs/``.
The report, its figures and ``steps.csv.gz`` are made from the first two.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mtbench.errors import BadInput
from mtbench.results import json_float, read_float, read_header
from mtbench.training.examined import Examined
from mtbench.training.published import QUANTITIES, Quantity
from mtbench.training.settings import Job

__all__ = ["FINAL", "KIND", "PACKED", "SCHEMA_VERSION", "EpochRow", "Trained", "TrainingRun", "read_epochs"]

SCHEMA_VERSION = 1
KIND = "training"
PACKED = "epochs.jsonl.gz"
"""What `gzip epochs.jsonl` leaves: a long run in a third of the room, to be read and not gone on with."""
FINAL = frozenset({"done", "diverged"})
"""The outcomes that going on with a run does not change."""


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of one job."""

    job: str
    epoch: int
    """From 0."""
    lr: float
    loss: tuple[float, ...]
    """Of each step, on the data it trained on, with dropout."""
    metric: tuple[float, ...]
    """The same of the task's metric."""
    seconds: tuple[float, ...]
    """Of each step: no data made, no evaluation, no checkpoint."""
    captured: int = 0
    """How many of them were replays of a CUDA graph: all but the first three, and those after a new learning
    rate, where steps are captured."""
    peak_memory_bytes: int | None
    """Up to the end of the epoch, in the job's process."""
    memory_method: str
    held_out_loss: float | None = None
    """After the epoch, without dropout; None where it was not looked at in whole."""
    held_out_metric: float | None = None
    held_out_metric_error: float | None = None
    """The standard error of that mean over the held-out data; None of fewer than two values."""
    tokens: int | None = None
    """Of the epoch's data, without padding; None where there is none."""
    examined: Examined | None = None
    """After the last epoch, where the task has more to find."""

    @property
    def total_s(self) -> float:
        """Seconds of all its steps."""
        return sum(self.seconds)

    @property
    def mean_loss(self) -> float:
        """Over its steps."""
        return sum(self.loss) / len(self.loss)

    def to_line(self) -> dict[str, Any]:
        """The line of epochs.jsonl; digits beyond what float32 holds are left out."""
        return {
            "job": self.job,
            "epoch": self.epoch,
            "lr": self.lr,
            "loss": [_short(x) for x in self.loss],
            "metric": [_short(x) for x in self.metric],
            "seconds": [float(f"{x:.5g}") for x in self.seconds],
            "captured": self.captured,
            "peak_memory_bytes": self.peak_memory_bytes,
            "memory_method": self.memory_method,
            "held_out_loss": json_float(self.held_out_loss),
            "held_out_metric": json_float(self.held_out_metric),
            "held_out_metric_error": json_float(self.held_out_metric_error),
            "tokens": self.tokens,
            "examined": None if self.examined is None else self.examined.to_dict(),
        }

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> EpochRow:
        """The row that `to_line` wrote."""
        held_out = {
            name: None if line.get(name) is None else read_float(line[name])
            for name in ("held_out_loss", "held_out_metric", "held_out_metric_error")
        }
        return cls(
            job=line["job"],
            epoch=line["epoch"],
            lr=line["lr"],
            loss=tuple(map(read_float, line["loss"])),
            metric=tuple(map(read_float, line["metric"])),
            seconds=tuple(line["seconds"]),
            captured=line["captured"],
            peak_memory_bytes=line["peak_memory_bytes"],
            memory_method=line["memory_method"],
            tokens=line.get("tokens"),
            examined=None if line.get("examined") is None else Examined.from_dict(line["examined"]),
            **held_out,
        )


def _short(value: float) -> float | str | None:
    return json_float(float(f"{value:.9g}"))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A job and what came of it so far."""

    job: Job
    status: str
    """``done``, ``diverged``, ``cut off``, ``crash``, ``timeout``, ``oom``, ``error``, or ``not begun``."""
    reason: str
    epochs: tuple[EpochRow, ...]

    @property
    def finished(self) -> bool:
        """Whether every epoch is there."""
        return self.status == "done" and len(self.epochs) == self.job.schedule.epochs

    @property
    def loss(self) -> float | None:
        """On held-out data at the end; None where it did not get there."""
        return self.epochs[-1].held_out_loss if self.finished else None

    @property
    def metric(self) -> float | None:
        """The same of the task's metric."""
        return self.epochs[-1].held_out_metric if self.finished else None

    @property
    def examined(self) -> Examined | None:
        """What its task found at the end."""
        return self.epochs[-1].examined if self.finished else None

    def value(self, quantity: Quantity) -> float | None:
        """Of a claim's quantity."""
        if quantity in QUANTITIES:
            found: float | None = getattr(self, quantity)
            return found
        return None if self.examined is None else self.examined.scores.get(quantity)

    @property
    def seconds_per_epoch(self) -> float | None:
        """The median over its epochs but the first, which compiles and captures; None of fewer than two."""
        later = [row.total_s for row in self.epochs[1:]]
        return median(later) if later else None

    @property
    def tokens_per_s(self) -> float | None:
        """Trained on, padding left out: the median over its epochs but the first."""
        schedule = self.job.schedule
        found = [
            (schedule.tokens * schedule.iterations if row.tokens is None else row.tokens) / row.total_s
            for row in self.epochs[1:]
            if row.total_s
        ]
        return median(found) if found else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """Of its process, at the last epoch that is there."""
        return self.epochs[-1].peak_memory_bytes if self.epochs else None


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training run's folder, read."""

    folder: Path
    header: Mapping[str, Any]
    jobs: tuple[Trained, ...]
    unreadable_lines: int = 0

    @classmethod
    def load(cls, folder: Path | str) -> TrainingRun:
        """Read a folder.

        Raises:
            BadInput: there is no training run in it, or a newer mtbench wrote it.
        """
        folder = Path(folder)
        header = read_header(folder, newest=SCHEMA_VERSION, kind=KIND)
        try:
            planned = [Job.from_dict(data) for data in header["plan"]["jobs"]]
        except (KeyError, TypeError) as error:
            raise BadInput(f"{folder / 'run.json'} has no plan of a training run: {error!r}") from error
        rows, unreadable = read_epochs(_lines(folder))
        outcomes = header.get("jobs", {})
        jobs = []
        for job in planned:
            outcome = outcomes.get(job.id, {})
            own = tuple(sorted(rows.get(job.id, {}).values(), key=lambda row: row.epoch))
            unheard = "cut off" if own else "not begun"
            jobs.append(
                Trained(
                    job=job,
                    status=outcome.get("status", unheard),
                    reason=outcome.get("reason", ""),
                    epochs=own,
                )
            )
        return cls(folder=folder, header=header, jobs=tuple(jobs), unreadable_lines=unreadable)

    def __iter__(self) -> Iterator[Trained]:
        return iter(self.jobs)

    @property
    def variants(self) -> tuple[str, ...]:
        """In the order of the plan."""
        return tuple(dict.fromkeys(trained.job.variant for trained in self.jobs))

    def of(self, variant: str) -> tuple[Trained, ...]:
        """A variant's jobs, a seed each."""
        return tuple(trained for trained in self.jobs if trained.job.variant == variant)

    def finite(self) -> bool:
        """Whether no loss of a finished job is infinite or NaN."""
        return all(t.loss is None or math.isfinite(t.loss) for t in self.jobs)


def _lines(folder: Path) -> bytes:
    """The epochs.jsonl of a folder, unpacked where it is packed; nothing where there is neither."""
    file, packed = folder / "epochs.jsonl", folder / PACKED
    if file.exists() or not packed.exists():
        return file.read_bytes() if file.exists() else b""
    try:
        return gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{packed} cannot be unpacked: {error}") from error


def read_epochs(text: bytes) -> tuple[dict[str, dict[int, EpochRow]], int]:
    """The rows of an epochs.jsonl, by job and epoch, and how many of its lines are none. Of an epoch that was
    told twice the later counts: that one the checkpoint goes on from."""
    rows: dict[str, dict[int, EpochRow]] = {}
    unreadable = 0
    for line in text.splitlines():
        try:
            row = EpochRow.from_line(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable += 1
        else:
            rows.setdefault(row.job, {})[row.epoch] = row
    return rows, unreadable
