"""ListOps of the Long Range Arena: nested operations on digits, of 500 to 2,000 symbols; the answer is one
digit.

The data is made by the benchmark's grammar (`listops_trees`), once, and kept in the cache folder. An epoch
takes the next of the 96,000 training expressions, in an order of the seed's. Held out is the whole test set;
nothing is chosen by it, so that the last epoch's accuracy is that of a test.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mtbench.caches import cache_folder
from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.locked_folder import write_atomically
from mtbench.spec import Case
from mtbench.training.metric import ACCURACY
from mtbench.training.published import Claim, Published
from mtbench.training.settings import Job, Optimization, Preset, Schedule
from mtbench.training.tasks import Task, attention_case
from mtbench.training.tasks.listops_trees import PAD, SYMBOLS, Expressions, draw
from mtbench.training.tasks.passes import shuffled
from mtbench.transformer.config import ModelConfig, ModelSize, Momenta

__all__ = ["SPLITS", "TASK", "ListOps", "split"]

CLASSES = 10
SPLITS: Mapping[str, int] = {"train": 96_000, "valid": 2_000, "test": 2_000}
"""Expressions of each, in the order in which they are drawn."""
SEED = 0
"""Of the data: one set for all trainings, as the benchmark's is one."""
FORMAT = 1
"""Of the files in the cache: counted up where the grammar's code draws others."""
SHORTEST = 32
"""The least seq_len: of fewer symbols there are not 100,000 expressions that differ."""
ALL = 10**6
"""Batches of held-out data: more than there are."""

SOURCE = "Nguyen, Baraniuk, Kirby, Osher, Wang: Momentum Transformer, PMLR v190 (2022), arXiv 2208.00579"
ACCURACIES = {"softmax": "0.3710", "linear": "0.1830", "momentum": "0.1956", "momentum+adaptive": "0.2016"}


def _above(variant: str, name: str, other: str, other_name: str) -> Claim:
    return Claim(
        text=f"{name} answers more than {other_name}",
        quantity="metric",
        variant=variant,
        against=other,
        relation="above",
        bound=1.0,
    )


PUBLISHED = Published(
    source=SOURCE,
    remark=(
        "One run each, without intervals. The paper's figures were made by its released code: its linear and "
        "momentum attention have no normaliser there (linear-bare and momentum-bare here), dropout acts on "
        "single weights of softmax attention, positions have learnt vectors, AdamW with a warm-up of 1,000 "
        "steps and a linear decay trains for 5,000 steps, and of all looks at the validation set the best "
        "counts. Here RAdam trains as many steps at the same learning rate, and the last step counts. To "
        "answer 9 always is right of 17% of the expressions."
    ),
    values={"metric": {**ACCURACIES, **{f"{v}-bare": ACCURACIES[v] for v in ("linear", "momentum")}}},
    claims=(
        _above("softmax", "Softmax", "linear", "linear"),
        _above("momentum", "Momentum", "linear", "linear"),
        _above("momentum+adaptive", "Momentum with adaptive connection", "linear", "linear"),
        _above("momentum+adaptive", "Momentum with adaptive connection", "momentum", "momentum"),
        _above("momentum-bare", "Momentum without normaliser", "linear-bare", "linear without normaliser"),
    ),
)


class ListOps(Task):
    """See the module."""

    name = "listops"
    title = "ListOps, of the Long Range Arena"
    metric = ACCURACY
    causal = False
    held_out_of = "test expressions"
    variants = ("softmax", "linear", "momentum", "momentum+adaptive", "linear-bare", "momentum-bare")
    momenta = Momenta(beta=0.1, gamma=0.6, connection=0.9, step=0.4, adaptive_step=0.4)
    published = PUBLISHED
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            why="The paper's model, and its released code's 5,000 steps of 32 expressions.",
            size=ModelSize(
                vocabulary=SYMBOLS,
                max_len=2000,
                d_model=64,
                layers=2,
                heads=2,
                head_dim=32,
                feed_forward=128,
            ),
            schedule=Schedule(
                epochs=50, iterations=100, batch=32, seq_len=2000, evaluations=10, evaluation_batches=ALL
            ),
            optimization=Optimization(lr=1e-4, weight_decay=0.0),
        ),
        "long": Preset(
            why="The paper's model, trained for 30,000 steps at a higher learning rate, until linear "
            "attention stops to improve.",
            size=ModelSize(
                vocabulary=SYMBOLS,
                max_len=2000,
                d_model=64,
                layers=2,
                heads=2,
                head_dim=32,
                feed_forward=128,
            ),
            schedule=Schedule(
                epochs=120, iterations=250, batch=32, seq_len=2000, evaluations=24, evaluation_batches=ALL
            ),
            optimization=Optimization(lr=1e-3, weight_decay=0.0, drop_epoch=100),
        ),
        "short": Preset(
            why="Expressions of 16 to 64 symbols and a smaller model, for a look on a CPU: too short to test "
            "the paper by.",
            size=ModelSize(
                vocabulary=SYMBOLS,
                max_len=64,
                d_model=32,
                layers=2,
                heads=2,
                head_dim=16,
                feed_forward=64,
            ),
            schedule=Schedule(
                epochs=8, iterations=50, batch=32, seq_len=64, evaluations=4, evaluation_batches=16
            ),
            optimization=Optimization(lr=3e-3, weight_decay=0.0, drop_epoch=6),
        ),
    }

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len < SHORTEST:
            raise BadInput(f"--seq-len {schedule.seq_len}: ListOps needs {SHORTEST} positions or more")

    def cases(self, job: Job) -> tuple[Case, ...]:
        """See `Task.cases`."""
        return (attention_case(job, causal=False, padded=True),)

    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Mapping[str, Array]:
        """See `Task.batches`: ``tokens``, [steps, batch, seq_len] uint8, ``lengths`` and ``values``, [steps,
        batch] int32 and int64; where held out ``there``, of that shape, is false for what fills up the last
        batch."""
        found = split("test" if held_out else "train", schedule.seq_len)
        count, batch = len(found.lengths), schedule.batch
        if held_out:
            steps = min(schedule.evaluation_batches, -(-count // batch))
            chosen = np.arange(steps * batch)
            data = _padded(found, chosen % count, schedule.seq_len)
            data["there"] = chosen < count
        else:
            steps = schedule.iterations
            chosen = shuffled(count, seed, first=epoch * steps * batch, wanted=steps * batch)
            data = _padded(found, chosen, schedule.seq_len)
        return {name: array.reshape(steps, batch, *array.shape[1:]) for name, array in data.items()}

    def shared(self, job: Job) -> Mapping[str, bytes]:
        """See `Task.shared`: none, but the cache is filled before trainings side by side look for it."""
        split("train", job.schedule.seq_len)
        return {}

    def tokens(self, groups: Sequence[Mapping[str, Array]]) -> int:
        """See `Task.tokens`."""
        return sum(int(data["lengths"].sum()) for data in groups)

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`: an encoder with a classifier's head."""
        from mtbench.transformer.classifier import Classifier

        return Classifier(config, attend, CLASSES)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.loss`: cross-entropy and accuracy."""
        loss, right = self._each(model, batch)
        return loss.mean(), right.mean()

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.evaluated`: of each expression."""
        loss, right = self._each(model, batch)
        return loss[batch["there"]], right[batch["there"]]

    def _each(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        from mtbench.transformer.losses import classified

        return classified(model(batch["tokens"].int(), batch["lengths"]), batch["values"])


def _padded(found: Expressions, chosen: Array, seq_len: int) -> dict[str, Array]:
    """Some expressions as rows."""
    lengths = found.lengths[chosen]
    starts = (np.cumsum(found.lengths, dtype=np.int64) - found.lengths)[chosen]
    tokens = np.full((len(chosen), seq_len), PAD, np.uint8)
    row = np.repeat(np.arange(len(chosen)), lengths)
    column = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    tokens[row, column] = found.symbols[starts[row] + column]
    return {"tokens": tokens, "lengths": lengths, "values": found.values[chosen].astype(np.int64)}


def split(name: str, seq_len: int) -> Expressions:
    """The expressions of one of `SPLITS`, of more than a quarter of seq_len and fewer than seq_len symbols:
    500 to 2,000 of the benchmark's. Made where the cache has none."""
    whole = _all(seq_len)
    before = 0
    for other, count in SPLITS.items():
        if other == name:
            break
        before += count
    ends = np.concatenate(([0], np.cumsum(whole.lengths, dtype=np.int64)))
    return Expressions(
        symbols=whole.symbols[ends[before] : ends[before + count]],
        lengths=whole.lengths[before : before + count],
        values=whole.values[before : before + count],
    )


@functools.lru_cache(maxsize=1)
def _all(seq_len: int) -> Expressions:
    """Those of all splits, from the cache."""
    file = cache_folder("listops") / f"format{FORMAT}-seed{SEED}-{seq_len}.npz"
    try:
        with file.open("rb") as data, np.load(data) as there:
            return Expressions(**{name: there[name] for name in ("symbols", "lengths", "values")})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there, or half of it
    made = draw(sum(SPLITS.values()), shortest=seq_len // 4, longest=seq_len, seed=SEED)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            file,
            lambda to: np.savez(to, symbols=made.symbols, lengths=made.lengths, values=made.values),
        )
    except OSError:
        pass  # a full or read-only disk costs the time of making it, and no more
    return made


TASK = ListOps()
