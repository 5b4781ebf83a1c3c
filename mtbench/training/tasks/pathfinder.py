"""Pathfinder of the Long Range Arena: do two dots of an image of 32 x 32 lie on one dashed line, read pixel
by pixel.

The data is a folder such as ``pathfinder32/curv_contour_length_14`` of the benchmark's release: lists in
``metadata``, a line an image (folder, file, number, class and more), and the images in ``imgs``. Of all, in
the order of a fixed seed, eight tenths are for training, one for validation, one for the test.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.training.settings import Job, Preset, Schedule
from mtbench.training.tasks.classified import ClassifiedTask, Labelled, arena_preset, arena_published, short
from mtbench.transformer.config import ModelSize, Momenta

__all__ = ["TASK", "Pathfinder"]

SIDE = 32
LEVELS = 256
NEEDS = "a folder such as pathfinder32/curv_contour_length_14 of the Long Range Arena, with metadata and imgs"
FILE = "images.npz"
SEED = 0
"""Of the order in which images are shared out."""


class Pathfinder(ClassifiedTask):
    """See the module."""

    name = "pathfinder"
    title = "Pathfinder, of the Long Range Arena"
    held_out_of = "test images"
    classes = 2
    momenta = Momenta(beta=0.3, gamma=0.1, connection=0.9, step=0.8, adaptive_step=0.8)
    published = arena_published("0.7248 0.7117 0.7312 0.7400", 62_400)
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": arena_preset(
            LEVELS, SIDE * SIDE, "images", epochs=200, iterations=312, batch=256, evaluations=20
        ),
        "short": short(LEVELS, SIDE * SIDE, epochs=2),
    }

    def __init__(self) -> None:
        self._listed: list[tuple[Path, int]] = []
        self._digests: Mapping[str, str] = {}
        self._images: Labelled | None = None

    def open(self, data: str | None) -> Self:
        """See `Task.open`: reads the lists. The images are read once a run."""
        if data is None:
            raise BadInput(f"the task {self.name} needs --data DIR, {NEEDS}")
        folder = Path(data)
        lists = sorted((folder / "metadata").glob("*.npy"))  # text, whatever their name says
        if not lists:
            raise BadInput(f"--data {data} has no metadata/*.npy: name {NEEDS}")
        opened = copy.copy(self)
        opened._listed, opened._digests = [], {file.name: _digest(file) for file in lists}
        for file in lists:
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                words = line.split()
                if len(words) < 4 or words[3] not in ("0", "1"):
                    raise BadInput(
                        f"{file}, line {number}: not a folder, a file, a number and a class, 0 or 1"
                    )
                opened._listed.append((folder / words[0] / words[1], int(words[3])))
        if len(opened._listed) < 10:
            raise BadInput(f"--data {data} lists {len(opened._listed)} images, and 10 or more are shared out")
        return opened

    def fingerprints(self) -> Mapping[str, str]:
        """See `Task.fingerprints`: of the lists."""
        return self._digests

    def shared(self, job: Job) -> Mapping[str, bytes]:
        """See `Task.shared`: all images in one file."""
        made = Labelled.joined(
            [_pixels(file) for file, _ in self._listed], [value for _, value in self._listed]
        )
        return {FILE: made.to_bytes()}

    def given(self, folder: Path) -> Self:
        """See `Task.given`."""
        opened = copy.copy(self)
        with (folder / FILE).open("rb") as file:
            opened._images = Labelled.load(file)
        return opened

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len != SIDE * SIDE:
            raise BadInput(
                f"--seq-len {schedule.seq_len}: an image has {SIDE * SIDE} positions: leave it out"
            )

    def part(self, name: str, seq_len: int) -> Labelled:
        """See `ClassifiedTask.part`."""
        if self._images is None:
            raise BadInput(f"the task {self.name} has no images yet: its run's folder has them")
        count = len(self._images.values)
        order = np.random.default_rng(SEED).permutation(count)
        chosen = order[: count * 8 // 10] if name == "train" else order[count * 9 // 10 :]
        pixels = self._images.symbols.reshape(count, -1)[chosen]
        return Labelled.joined(list(pixels), self._images.values[chosen].tolist())


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _pixels(file: Path) -> Array:
    """[rows x columns] grey levels.

    Raises:
        BadInput: there is no such image, or it has another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            found: Array = np.asarray(image.convert("L"))
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{file} cannot be read as an image: {error}") from error
    if found.shape != (SIDE, SIDE):
        raise BadInput(f"{file} has {found.shape[0]} x {found.shape[1]} pixels, and {SIDE} x {SIDE} are read")
    return found.ravel()


TASK = Pathfinder()
