"""ListOps of the Long Range Arena: nested operations on digits, of 500 to 2,000 symbols; the answer is one
digit.

The data is made by the benchmark's grammar (`listops_trees`), once, and kept in the cache folder.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping
from typing import ClassVar

from mtbench.caches import cache_folder
from mtbench.errors import BadInput
from mtbench.locked_folder import write_atomically
from mtbench.training.settings import Job, Optimization, Preset, Schedule
from mtbench.training.tasks.classified import (
    ALL,
    ClassifiedTask,
    Labelled,
    above,
    arena_preset,
    arena_published,
    arena_size,
    short,
)
from mtbench.training.tasks.listops_trees import SYMBOLS, draw
from mtbench.transformer.config import ModelSize, Momenta

__all__ = ["SPLITS", "TASK", "ListOps", "split"]

SPLITS: Mapping[str, int] = {"train": 96_000, "valid": 2_000, "test": 2_000}
"""Expressions of each, in the order in which they are drawn."""
SEED = 0
"""Of the data: one set for all trainings, as the benchmark's is one."""
FORMAT = 1
"""Of the files in the cache: counted up where the grammar's code draws others."""
SHORTEST = 32
"""The least seq_len: of fewer symbols there are not 100,000 expressions that differ."""


class ListOps(ClassifiedTask):
    """See the module."""

    name = "listops"
    title = "ListOps, of the Long Range Arena"
    held_out_of = "test expressions"
    classes = 10
    momenta = Momenta(beta=0.1, gamma=0.6, connection=0.9, step=0.4, adaptive_step=0.4)
    published = arena_published(
        "0.3710 0.1830 0.1956 0.2016",
        5000,
        also=(above("softmax", "Softmax", "linear", "linear"),),
        remark="To answer 9 always is right of 17% of the expressions.",
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": arena_preset(
            SYMBOLS, 2000, "expressions", epochs=50, iterations=100, batch=32, evaluations=10
        ),
        "long": Preset(
            why="The paper's model, trained for 12,000 steps at a higher learning rate, until linear "
            "attention stops to improve.",
            size=arena_size(SYMBOLS, 2000),
            schedule=Schedule(
                epochs=60, iterations=200, batch=32, seq_len=2000, evaluations=20, evaluation_batches=ALL
            ),
            optimization=Optimization(lr=1e-3, weight_decay=0.0, drop_epoch=50),
        ),
        "short": short(SYMBOLS, 64),
    }

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len < SHORTEST:
            raise BadInput(f"--seq-len {schedule.seq_len}: ListOps needs {SHORTEST} positions or more")

    def shared(self, job: Job) -> Mapping[str, bytes]:
        """See `Task.shared`: none, but the cache is filled before trainings side by side look for it."""
        split("train", job.schedule.seq_len)
        return {}

    def part(self, name: str, seq_len: int) -> Labelled:
        """See `ClassifiedTask.part`."""
        return split(name, seq_len)


def split(name: str, seq_len: int) -> Labelled:
    """The expressions of one of `SPLITS`, of more than a quarter of seq_len and fewer than seq_len symbols:
    500 to 2,000 of the benchmark's. Made where the cache has none."""
    names = list(SPLITS)
    return _all(seq_len).part(sum(SPLITS[n] for n in names[: names.index(name)]), SPLITS[name])


@functools.lru_cache(maxsize=1)
def _all(seq_len: int) -> Labelled:
    """Those of all splits, from the cache."""
    file = cache_folder("listops") / f"format{FORMAT}-seed{SEED}-{seq_len}.npz"
    try:
        with file.open("rb") as data:
            return Labelled.load(data)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there, or half of it
    made = draw(sum(SPLITS.values()), shortest=seq_len // 4, longest=seq_len, seed=SEED)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, made.save)
    except OSError:
        pass  # a full or read-only disk costs the time of making it, and no more
    return made


TASK = ListOps()
