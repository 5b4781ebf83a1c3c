"""One job, from its seed to its last epoch, in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mtbench.frameworks.torch import RunningPeak
from mtbench.spec import AttentionSpec
from mtbench.training.checkpoint import load_checkpoint, save_checkpoint
from mtbench.training.settings import Job, Kernels
from mtbench.training.step import Evaluation, Stepper
from mtbench.training.tasks import grouped, load_task
from mtbench.transformer.attention import BackendAttention
from mtbench.transformer.fused import compile_parts

__all__ = ["Trainer", "attention_by"]


def attention_by(kernels: Kernels) -> Any:
    """The attention of a model (`mtbench.transformer.attention.Attend`): each kind by the backend that is
    named for it.

    Raises:
        BadInput: as `BackendAttention`.
    """
    made: dict[str, BackendAttention] = {}

    def attend(
        spec: AttentionSpec,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if spec.kind not in made:
            made[spec.kind] = BackendAttention(kernels.backend(spec.kind), kernels.form(spec.kind))
        return made[spec.kind](spec, q, k, v, lengths)

    return attend


class Trainer:
    """A job, where its checkpoint left it."""

    def __init__(
        self,
        job: Job,
        checkpoint: Path,
        *,
        every_s: float,
        kept: Callable[[], object] = lambda: None,
        shared: Path | None = None,
    ) -> None:
        """At its beginning, or where the checkpoint is.

        Args:
            job: what is trained.
            checkpoint: the file.
            every_s: the least seconds between two checkpoints but the last.
            shared: the folder of what all trainings of the run share, where there is one.
            kept: returns when all that `run` said so far is on the disk. A checkpoint never is further.

        Raises:
            BadInput: a checkpoint that is not this job's.
        """
        self.job, self._file, self._every_s, self._kept = job, checkpoint, every_s, kept
        self._task = load_task(job.task).open(job.data)
        if shared is not None:
            self._task = self._task.given(shared)
        if job.kernels.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        # The same beginning for every variant of a seed: its parameters have the same shapes.
        torch.manual_seed(job.seed)
        self._peak = RunningPeak(job.kernels.device)
        model = self._task.model(job.model, attention_by(job.kernels)).to(job.kernels.device)
        if job.kernels.compiled:
            compile_parts(model)
        self._stepper = Stepper(job, self._task, model)
        self.epoch = load_checkpoint(checkpoint, job=job.id, model=model, optimizer=self._stepper.optimizer)
        """How many are done."""
        self.diverged = ""
        """What showed that it is no longer made of numbers, in one line; empty while it is."""
        self._held_out = self._task.batches(
            job.schedule, job.model.size, seed=job.seed, epoch=0, held_out=True
        )
        self._saved_epoch, self._saved_at = self.epoch, time.monotonic()

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self._stepper.model.parameters())

    def run(self) -> Iterator[dict[str, Any]]:
        """Train, an epoch at a time, and say what each left (`mtbench.training.results.EpochRow`). An epoch
        may be said twice, by one that goes on from a checkpoint, and none is lost.

        Ends where it diverges: the loss of an epoch's last step is no number, or what held-out data says
        after it is none. Of such a model there is no checkpoint, so held-out data has a word after every
        epoch: all of it where the schedule says so, else its first batch."""
        schedule = self.job.schedule
        first = {name: array[:1] for name, array in grouped(self._held_out)[0].items()}
        data = self._batches(self.epoch)
        while self.epoch < schedule.epochs:
            lr = self.job.optimization.lr_at(self.epoch)
            self._stepper.load(data)
            tokens = self._task.tokens(grouped(data))
            clock = self._stepper.start(lr)
            if self.epoch + 1 < schedule.epochs:
                data = self._batches(self.epoch + 1)  # on the host, while a GPU is busy with the steps
            steps = self._stepper.finish(clock)
            evaluates = schedule.evaluates(self.epoch)
            evaluation = self._stepper.evaluate(self._held_out if evaluates else first)
            self.diverged = self._divergence(steps.loss, evaluation)
            examined = None
            if self.epoch + 1 == schedule.epochs and not self.diverged:
                examined = self._stepper.examine()
            peak = self._peak.read()
            self.epoch += 1
            yield {
                "epoch": self.epoch - 1,
                "lr": lr,
                "loss": steps.loss,
                "metric": steps.metric,
                "seconds": steps.seconds,
                "captured": steps.captured,
                "peak_memory_bytes": peak.bytes,
                "memory_method": peak.method,
                "evaluation": asdict(evaluation) if evaluates else None,
                "tokens": tokens,
                "examined": None if examined is None else examined.to_dict(),
            }
            if self.diverged:
                return
            if self.epoch == schedule.epochs or time.monotonic() - self._saved_at >= self._every_s:
                self.save()

    def save(self) -> None:
        """A checkpoint of now, unless there is one already, or it has diverged."""
        if self._saved_epoch != self.epoch and not self.diverged:
            self._kept()
            save_checkpoint(
                self._file,
                job=self.job.id,
                epoch=self.epoch,
                model=self._stepper.model,
                optimizer=self._stepper.optimizer,
            )
            self._saved_epoch = self.epoch
        self._saved_at = time.monotonic()

    def _divergence(self, losses: list[float], held_out: Evaluation) -> str:
        """See `diverged`, of the epoch that is under way."""
        if not math.isfinite(losses[-1]):
            at, loss = next((at, loss) for at, loss in enumerate(losses) if not math.isfinite(loss))
            return f"the loss is {loss} from step {self.epoch * len(losses) + at} on"
        if not math.isfinite(held_out.loss):
            return f"the held-out loss is {held_out.loss} after epoch {self.epoch + 1}"
        return ""

    def _batches(self, epoch: int) -> Any:
        return self._task.batches(self.job.schedule, self.job.model.size, seed=self.job.seed, epoch=epoch)
