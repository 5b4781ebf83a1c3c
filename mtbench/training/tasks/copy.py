"""The copy task: a word, a separator, and the word again, which the model has to say.

A word w of n symbols, n uniform in seq_len // 4 .. (seq_len - 1) // 2 - 1, is laid out as ``w 0 w`` and then
zeros. The model predicts the next symbol; loss and accuracy are taken where it can know it, at positions n-1
.. 2n-1 (from 0): the separator and the second w. The settings are those of section 4 of "Momentum
Transformer" (arXiv 2208.00579) and of the code released with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.training.metric import ACCURACY
from mtbench.training.published import PAPER, Claim, Published
from mtbench.training.settings import Optimization, Preset, Schedule
from mtbench.training.tasks import Task
from mtbench.transformer.config import ModelConfig, ModelSize, Momenta

__all__ = ["TASK", "Copy"]

SYMBOLS = 10
"""Beside the separator, 0."""
SHORTEST = 8
"""The least seq_len in which a word fits twice."""
HELD_OUT = 1_000_003
"""The seed of what is held out: one for all, so that seeds and variants are judged on the same."""


LINEAR_S, DIGIT_S = 6.4, 0.1
"""Published seconds of an epoch of linear, and the last digit that is given."""


def _below_linear(variant: str, name: str) -> Claim:
    return Claim(
        text=f"{name} ends at a lower loss than linear",
        quantity="loss",
        variant=variant,
        against="linear",
        relation="below",
        bound=1.0,
    )


def _costs(variant: str, name: str, seconds: float) -> Claim:
    """At most the largest ratio that the two published times, each rounded, can have come from."""
    most = (seconds + DIGIT_S / 2) / (LINEAR_S - DIGIT_S / 2)
    return Claim(
        text=f"{name} takes at most {most:.2f} times linear's seconds an epoch "
        f"({seconds} against {LINEAR_S} s)",
        quantity="seconds_per_epoch",
        variant=variant,
        against="linear",
        relation="at most",
        bound=most,
    )


PUBLISHED = Published(
    source=PAPER,
    remark=(
        "One run each, without intervals. The paper's figures were made by its released code, whose momentum "
        "attention and connections are others than the paper's formulas."
    ),
    values={
        "metric": dict.fromkeys(
            ("softmax", "linear", "momentum", "momentum+momentum", "momentum+adaptive"), "about 1.0"
        ),
        "seconds_per_epoch": {
            "softmax": "7.1",
            "linear": "6.4",
            "momentum": "6.5",
            "momentum+momentum": "6.6",
            "momentum+adaptive": "6.8",
        },
    },
    claims=(
        *(
            Claim(
                text=f"{name} reaches an accuracy of about 1.0 (0.95 or more, which rounds to it)",
                quantity="metric",
                variant=variant,
                relation="at least",
                bound=0.95,
            )
            for name, variant in (
                ("Softmax", "softmax"),
                ("Linear", "linear"),
                ("Momentum", "momentum"),
                ("Momentum with momentum connection", "momentum+momentum"),
                ("Momentum with adaptive connection", "momentum+adaptive"),
            )
        ),
        _below_linear("momentum", "Momentum"),
        _below_linear("momentum-released", "Momentum attention as the released code trains it"),
        _below_linear("momentum+momentum", "Momentum with momentum connection"),
        _below_linear("momentum+adaptive", "Momentum with adaptive connection"),
        _costs("momentum", "Momentum", 6.5),
        _costs("momentum+momentum", "Momentum with momentum connection", 6.6),
        _costs("momentum+adaptive", "Momentum with adaptive connection", 6.8),
        Claim(
            text="Softmax takes more seconds an epoch than linear (7.1 against 6.4 s)",
            quantity="seconds_per_epoch",
            variant="softmax",
            against="linear",
            relation="above",
            bound=1.0,
        ),
    ),
)


class Copy(Task):
    """See the module."""

    name = "copy"
    title = "The copy task"
    metric = ACCURACY
    causal = True
    decoder = True
    momenta = Momenta(beta=0.1, gamma=0.6, connection=0.99, step=0.99, adaptive_step=0.99)
    published = PUBLISHED
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            why="The paper's own settings: 100 epochs of 100 steps, 128 positions, 4 layers of 256.",
            size=ModelSize(vocabulary=SYMBOLS + 1, max_len=128),
            schedule=Schedule(epochs=100, iterations=100, batch=64, seq_len=128),
            optimization=Optimization(drop_epoch=30),
        ),
        "short": Preset(
            why="Shorter words and a smaller model, for a look on a CPU: too short to test the paper by.",
            size=ModelSize(
                vocabulary=SYMBOLS + 1,
                max_len=24,
                d_model=64,
                layers=2,
                heads=4,
                head_dim=16,
                feed_forward=128,
            ),
            schedule=Schedule(epochs=12, iterations=50, batch=32, seq_len=24, evaluation_batches=8),
            optimization=Optimization(lr=3e-3, drop_epoch=9),
        ),
    }

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len < SHORTEST:
            raise BadInput(f"--seq-len {schedule.seq_len}: the copy task needs {SHORTEST} positions or more")

    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Mapping[str, Array]:
        """See `Task.batches`: ``tokens`` and ``targets``, [steps, batch, seq_len] int64, and ``counts``, of
        the same shape, 1.0 where the loss is taken and 0.0 elsewhere."""
        steps = schedule.evaluation_batches if held_out else schedule.iterations
        rng = np.random.default_rng((HELD_OUT, 0) if held_out else (seed, 1, epoch))
        shape, positions = (steps, schedule.batch, 1), schedule.seq_len
        longest = (positions - 1) // 2 - 1
        n = rng.integers(positions // 4, longest + 1, shape)
        words = rng.integers(1, SYMBOLS + 1, (*shape[:2], longest))
        at = np.arange(positions)
        first, second = at < n, (at > n) & (at <= 2 * n)
        letter = np.where(first, at, np.clip(at - n - 1, 0, longest - 1)).clip(0, longest - 1)
        tokens = np.where(first | second, np.take_along_axis(words, letter, 2), 0)
        targets = np.concatenate((tokens[..., 1:], np.zeros((*shape[:2], 1), np.int64)), 2)
        counts = ((at >= n - 1) & (at <= 2 * n - 1)).astype(np.float32)
        return {"tokens": tokens, "targets": targets, "counts": counts}

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`: a causal decoder."""
        from mtbench.transformer.model import Transformer

        return Transformer(config, attend, causal=True)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.loss`: cross-entropy and accuracy."""
        from mtbench.transformer.losses import counted_cross_entropy

        return counted_cross_entropy(model(batch["tokens"]), batch["targets"], batch["counts"])


TASK = Copy()
