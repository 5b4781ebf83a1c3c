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
from mtbench.training.published import Published
from mtbench.training.settings import Optimization, Preset, Schedule
from mtbench.training.tasks.images import ALL, Images, ImageTask, image_claims, paper_preset, read_data, sized
from mtbench.transformer.config import Momenta

__all__ = ["TASK", "Cifar10"]

TRAIN, TEST = tuple(f"data_batch_{part}.bin" for part in range(1, 6)), "test_batch.bin"
SIDE, CHANNELS, CLASSES, TRAINING = 32, 3, 10, 50_000
PIXELS = SIDE * SIDE * CHANNELS
BITS = {
    "softmax": "3.20",
    "linear": "3.44",
    "momentum": "3.43",
    "momentum+momentum": "3.41",
    "momentum+adaptive": "3.38",
}
PUBLISHED = Published(
    source="Nguyen, Baraniuk, Kirby, Osher, Wang: Momentum Transformer, PMLR v190 (2022), arXiv 2208.00579, "
    "table 2",
    remark=(
        "One run each, without intervals; softmax was trained with one image a step, the others with four. "
        "The paper's figures were made by its released code, whose momentum attention and connections are "
        "others than the paper's formulas, and which is given the first value of every image, where here it "
        "is predicted, too."
    ),
    values={"metric": BITS},
    claims=image_claims(BITS),
    images_per_s={
        "softmax": "0.004",
        "linear": "17.85",
        "momentum": "17.52",
        "momentum+momentum": "17.11",
        "momentum+adaptive": "17.07",
    },
)


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
    published = PUBLISHED
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
            schedule=Schedule(
                epochs=2,
                iterations=TRAINING // 20,
                batch=20,
                seq_len=PIXELS,
                evaluations=1,
                evaluation_batches=ALL,
            ),
            optimization=Optimization(lr=4e-4),
        ),
        "short": Preset(
            why="A small model for some minutes, for a look on a CPU, held against 20 test images: too short "
            "to test the paper by.",
            size=sized(PIXELS, d_model=64, layers=2, heads=4, head_dim=16, feed_forward=128),
            schedule=Schedule(epochs=4, iterations=40, batch=2, seq_len=PIXELS, evaluation_batches=10),
            optimization=Optimization(lr=3e-3, drop_epoch=3),
        ),
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
