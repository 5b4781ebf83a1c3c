"""Text of the Long Range Arena: is a film's review for or against it, read byte by byte.

The data is the folder ``aclImdb`` of the Large Movie Review Dataset (Maas et al. 2011): ``train`` and
``test``, each with ``pos`` and ``neg``, a file a review. Those of each are in the order of a fixed seed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from mtbench.errors import BadInput
from mtbench.training.settings import Preset, Schedule
from mtbench.training.tasks.classified import ClassifiedTask, Labelled, arena_preset, arena_published, short
from mtbench.transformer.config import ModelSize, Momenta

__all__ = ["TASK", "Text"]

BYTES = 256
"""A byte is its own symbol; 0, which no text has, is padding."""
SIDES = ("neg", "pos")
SEED = 0
"""Of the order of reviews: one class after the other, the first batches of the test set would be of one."""
NEEDS = (
    "the folder aclImdb of the Large Movie Review Dataset, with train/pos, train/neg, test/pos and test/neg"
)


class Text(ClassifiedTask):
    """See the module."""

    name = "text"
    title = "Text, byte by byte, of the Long Range Arena"
    held_out_of = "test reviews"
    classes = 2
    momenta = Momenta(beta=0.6, gamma=2.0, connection=0.9, step=0.001, adaptive_step=0.001)
    published = arena_published("0.6417 0.6422 0.6435 0.6445", 20_000)
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": arena_preset(
            BYTES, 4000, "reviews, of 4,000 bytes", epochs=100, iterations=200, batch=32, evaluations=10
        ),
        "short": short(BYTES, 128),
    }

    def __init__(self) -> None:
        self._parts: Mapping[str, Labelled] = {}
        self._digests: Mapping[str, str] = {}

    def open(self, data: str | None) -> Self:
        """See `Task.open`."""
        if data is None:
            raise BadInput(f"the task {self.name} needs --data DIR, {NEEDS}")
        parts, digests = {}, {}
        for part in ("train", "test"):
            rows, values, digest = [], [], hashlib.sha256()
            for value, side in enumerate(SIDES):
                files = sorted((Path(data) / part / side).glob("*.txt"))
                if not files:
                    raise BadInput(f"--data {data} has no {part}/{side}/*.txt: name {NEEDS}")
                for file in files:
                    text = file.read_bytes()
                    digest.update(text)
                    rows.append(np.frombuffer(text.replace(b"\0", b""), np.uint8))
                    values.append(value)
            order = np.random.default_rng(SEED).permutation(len(rows))
            parts[part] = Labelled.joined([rows[at] for at in order], [values[at] for at in order])
            digests[part] = digest.hexdigest()[:16]
        opened = copy.copy(self)
        opened._parts, opened._digests = parts, digests
        return opened

    def fingerprints(self) -> Mapping[str, str]:
        """See `Task.fingerprints`: of all reviews of a part."""
        return self._digests

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`: any length will do."""

    def part(self, name: str, seq_len: int) -> Labelled:
        """See `ClassifiedTask.part`."""
        return self._parts[name]


TASK = Text()
