"""CIFAR-10, 32 x 32 pixels of three colours, from a folder of its binary files.

A file has records of 3,073 bytes: a label of 0 to 9, and the image's red, green and blue one after the other.
The model reads them pixel by pixel, as in the paper's code. The settings are those of section 4.2 of
"Momentum Transformer" (arXiv 2208.00579) and of the code released with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.training.settings import Optimization, Preset
from mtbench.training.tasks.image_settings import image_published, over_all, paper_preset, short_preset, sized
from mtbench.training.tasks.images import Images, ImageTask, read_data
from mtbench.transformer.config import Momenta

__all__ = ["TASK", "Cifar10"]

TRAIN, TEST = tuple(f"data_batch_{part}.bin" for part in range(1, 6)), "test_batch.bin"
SIDE, CHANNELS, CLASSES, TRAINING = 32, 3, 10, 50_000
PIXELS = SIDE * SIDE * CHANNELS


class Cifar10(ImageTask):
    """See the module."""

    name = "cifar10"
    title = "CIFAR-10, pixel by pixel"
    shape = (SIDE, SIDE, CHANNELS)
    needs = (
        "the folder cifar-10-batches-bin with data_batch_1.bin to data_batch_5.bin and test_batch.bin, plain "
        "or .gz (the binary version of https://www.cs.toronto.edu/~kriz/cifar.html)"
    )
    momenta = Momenta(beta=0.1, gamma=0.9, connection=0.1, step=0.9, adaptive_step=0.9)
    published = image_published(
        2,
        bits="3.20 3.44 3.43 3.41 3.38",
        images_per_s="0.004 17.85 17.52 17.11 17.07",
        runs="softmax was trained with one image a step, the others with four",
        first="value",
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": paper_preset(
            "CIFAR-10",
            sized(PIXELS, layers=16),
            epochs=100,
            images=TRAINING,
            batch=4,
            lr=2e-4,
            remark=" (Softmax with a batch of 1 there.)",
        ),
        "card": Preset(
            why="The paper's model for two epochs, some minutes a variant on an H100: five times the paper's "
            "batch, and twice its learning rate.",
            size=sized(PIXELS, layers=16),
            schedule=over_all(TRAINING, PIXELS, epochs=2, batch=20, evaluations=1),
            optimization=Optimization(lr=4e-4),
        ),
        "short": short_preset(PIXELS, iterations=40, batch=2, evaluation_batches=10),
    }

    def read(self, folder: Path) -> tuple[Images, Mapping[str, bytes]]:
        """See `ImageTask.read`."""
        files = read_data(folder, (*TRAIN, TEST), self.needs)
        read = {name: _records(str(folder / name), text) for name, text in files.items()}
        return (np.concatenate([read[name] for name in TRAIN]), read[TEST]), files


def _records(name: str, text: bytes) -> Array:
    """[images, pixels] of a file's content.

    Raises:
        BadInput: it is no whole number of records, or a label is none.
    """
    if not text or len(text) % (1 + PIXELS):
        raise BadInput(
            f"{name} is no file of CIFAR-10's binary version: {len(text)} bytes are no whole number of "
            f"records of {1 + PIXELS}"
        )
    records = np.frombuffer(text, np.uint8).reshape(-1, 1 + PIXELS)
    if (wrong := records[:, 0] >= CLASSES).any():
        at = int(wrong.argmax())
        raise BadInput(
            f"{name} is no file of CIFAR-10's binary version: record {at} has the label {records[at, 0]}, "
            f"and labels are 0 to {CLASSES - 1}"
        )
    planes = records[:, 1:].reshape(-1, CHANNELS, SIDE * SIDE)
    return planes.transpose(0, 2, 1).reshape(-1, PIXELS)


TASK = Cifar10()
