"""What the tasks of the Long Range Arena share: a sequence of symbols in, one of a few classes out.

An epoch takes the next of the training sequences, in an order of the seed's. Held out is the whole test set;
nothing is chosen by it, so that the last epoch's accuracy is that of a test.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, ClassVar

import numpy as np

from mtbench.inputs import Array
from mtbench.spec import Case
from mtbench.training.metric import ACCURACY
from mtbench.training.published import PAPER, Claim, Published
from mtbench.training.settings import Job, Optimization, Preset, Schedule
from mtbench.training.tasks import Task, attention_case
from mtbench.training.tasks.passes import shuffled
from mtbench.transformer.config import ModelConfig, ModelSize

__all__ = [
    "ALL",
    "PAD",
    "ClassifiedTask",
    "Labelled",
    "arena_preset",
    "arena_published",
    "arena_size",
    "short",
]

PAD = 0
ALL = 10**6
"""Batches of held-out data: more than there are."""
ARENA = ("softmax", "linear", "momentum", "momentum+adaptive")
"""What the paper compares."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Sequences one after another, and their classes."""

    symbols: Array
    """[symbols of all] uint8."""
    lengths: Array
    """Symbols of each, [sequences] int32."""
    values: Array
    """The class of each, [sequences] uint8."""

    @classmethod
    def joined(cls, rows: Sequence[Array], values: Sequence[int]) -> Labelled:
        """Of arrays of symbols."""
        return cls(
            symbols=np.concatenate([np.asarray(row, np.uint8).ravel() for row in rows]),
            lengths=np.array([np.size(row) for row in rows], np.int32),
            values=np.array(values, np.uint8),
        )

    @classmethod
    def load(cls, file: IO[bytes]) -> Labelled:
        """What `save` wrote.

        Raises:
            ValueError, KeyError, zipfile.BadZipFile: it is not whole.
        """
        with np.load(file) as there:
            return cls(**{name: there[name] for name in ("symbols", "lengths", "values")})

    def save(self, file: IO[bytes]) -> None:
        """As NumPy's npz."""
        np.savez(file, symbols=self.symbols, lengths=self.lengths, values=self.values)

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        made = io.BytesIO()
        self.save(made)
        return made.getvalue()

    def part(self, first: int, count: int) -> Labelled:
        """Some of them."""
        ends = np.concatenate(([0], np.cumsum(self.lengths, dtype=np.int64)))
        return Labelled(
            symbols=self.symbols[ends[first] : ends[first + count]],
            lengths=self.lengths[first : first + count],
            values=self.values[first : first + count],
        )

    def rows(self, chosen: Array, width: int) -> dict[str, Array]:
        """Some of them, each cut or filled to that width: ``tokens``, [rows, width] uint8, ``lengths``,
        [rows] int32, and ``values``, [rows] int64."""
        starts = (np.cumsum(self.lengths, dtype=np.int64) - self.lengths)[chosen]
        lengths = np.minimum(self.lengths[chosen], width)
        tokens = np.full((len(chosen), width), PAD, np.uint8)
        row = np.repeat(np.arange(len(chosen)), lengths)
        column = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        tokens[row, column] = self.symbols[starts[row] + column]
        return {"tokens": tokens, "lengths": lengths, "values": self.values[chosen].astype(np.int64)}


class ClassifiedTask(Task):
    """See the module. A subclass has the sequences."""

    metric = ACCURACY
    causal = False
    variants = (*ARENA, "linear-bare", "momentum-bare")
    classes: ClassVar[int]

    @abstractmethod
    def part(self, name: str, seq_len: int) -> Labelled:
        """The sequences of ``train`` or ``test``, at most that long or to be cut there."""

    def cases(self, job: Job) -> tuple[Case, ...]:
        """See `Task.cases`."""
        return (attention_case(job, causal=False, padded=True),)

    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Mapping[str, Array]:
        """See `Task.batches`: ``tokens``, [steps, batch, seq_len] uint8, ``lengths`` and ``values``, [steps,
        batch] int32 and int64; where held out ``there``, of that shape, is false for what fills up the last
        batch."""
        found = self.part("test" if held_out else "train", schedule.seq_len)
        count, batch = len(found.lengths), schedule.batch
        if held_out:
            steps = min(schedule.evaluation_batches, -(-count // batch))
            at = np.arange(steps * batch)
            data = found.rows(at % count, schedule.seq_len)
            data["there"] = at < count
        else:
            steps = schedule.iterations
            chosen = shuffled(count, seed, first=epoch * steps * batch, wanted=steps * batch)
            data = found.rows(chosen, schedule.seq_len)
        return {name: array.reshape(steps, batch, *array.shape[1:]) for name, array in data.items()}

    def tokens(self, groups: Sequence[Mapping[str, Array]]) -> int:
        """See `Task.tokens`."""
        return sum(int(data["lengths"].sum()) for data in groups)

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`: an encoder with a classifier's head."""
        from mtbench.transformer.classifier import Classifier

        return Classifier(config, attend, self.classes)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.loss`: cross-entropy and accuracy."""
        loss, right = self._each(model, batch)
        return loss.mean(), right.mean()

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.evaluated`: of each sequence."""
        loss, right = self._each(model, batch)
        return loss[batch["there"]], right[batch["there"]]

    def _each(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        from mtbench.transformer.losses import classified

        return classified(model(batch["tokens"].int(), batch["lengths"]), batch["values"])


def arena_size(vocabulary: int, seq_len: int) -> ModelSize:
    """The paper's, of every task of the Long Range Arena."""
    return ModelSize(
        vocabulary=vocabulary,
        max_len=seq_len,
        d_model=64,
        layers=2,
        heads=2,
        head_dim=32,
        feed_forward=128,
    )


def arena_preset(vocabulary: int, seq_len: int, what: str, **schedule: int) -> Preset:
    """The paper's model and its released code's steps, each of so many sequences: `what` they are."""
    made = Schedule(seq_len=seq_len, evaluation_batches=ALL, **schedule)
    return Preset(
        why=f"The paper's model, and its released code's {made.epochs * made.iterations:,} steps of "
        f"{made.batch} {what}.",
        size=arena_size(vocabulary, seq_len),
        schedule=made,
        optimization=Optimization(lr=1e-4, weight_decay=0.0),
    )


def short(vocabulary: int, seq_len: int, *, epochs: int = 8) -> Preset:
    """A preset for a look on a CPU."""
    return Preset(
        why=f"Sequences of {seq_len} symbols at most and a smaller model, for a look on a CPU: too short to "
        "test the paper by.",
        size=replace(arena_size(vocabulary, seq_len), d_model=32, head_dim=16, feed_forward=64),
        schedule=Schedule(
            epochs=epochs, iterations=50, batch=32, seq_len=seq_len, evaluations=4, evaluation_batches=16
        ),
        optimization=Optimization(lr=3e-3, weight_decay=0.0, drop_epoch=epochs * 3 // 4),
    )


def _claims() -> tuple[Claim, ...]:
    """What the paper's table says of every one of these tasks: momentum above linear, adaptive above both."""
    adaptive = "Momentum with adaptive connection"
    return (
        above("momentum", "Momentum", "linear", "linear"),
        above("momentum+adaptive", adaptive, "linear", "linear"),
        above("momentum+adaptive", adaptive, "momentum", "momentum"),
        above("momentum-bare", "Momentum without normaliser", "linear-bare", "linear without normaliser"),
    )


def above(variant: str, name: str, other: str, other_name: str) -> Claim:
    """One is right more often than another."""
    return Claim(
        text=f"{name} is right more often than {other_name}",
        quantity="metric",
        variant=variant,
        against=other,
        relation="above",
        bound=1.0,
    )


def arena_published(
    accuracies: str, steps: int, *, also: tuple[Claim, ...] = (), remark: str = ""
) -> Published:
    """The paper's accuracies of `ARENA`, in that order, which its released code made, and how that differs.

    Args:
        accuracies: in the paper's digits.
        steps: that the released code trains for.
        also: claims beside those of every task.
        remark: what else to know.
    """
    values = dict(zip(ARENA, accuracies.split(), strict=True))
    bare = {f"{variant}-bare": values[variant] for variant in ("linear", "momentum")}
    return Published(
        source=PAPER,
        remark=(
            "One run each, without intervals. The paper's figures were made by its released code: its linear "
            "and momentum attention have no normaliser there (linear-bare and momentum-bare here), dropout "
            "acts on single weights of softmax attention, positions have learnt vectors, AdamW with a "
            f"warm-up and a linear decay trains for {steps:,} steps, and of all looks at the validation set "
            "the best counts. Here RAdam trains as many steps at the same learning rate, and the last step "
            "counts. " + remark
        ).strip(),
        values={"metric": {**values, **bare}},
        claims=(*also, *_claims()),
    )
