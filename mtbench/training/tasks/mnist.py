"""MNIST, 28 x 28 pixels of 256 grey levels, from a folder of its IDX files.

The settings are those of section 4.2 of "Momentum Transformer" (arXiv 2208.00579) and of the code released
with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mtbench.training.settings import Optimization, Preset
from mtbench.training.tasks.idx import read_idx
from mtbench.training.tasks.image_settings import image_published, over_all, paper_preset, short_preset, sized
from mtbench.training.tasks.images import Images, ImageTask, read_data
from mtbench.transformer.config import Momenta

__all__ = ["TASK", "Mnist"]

FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
SIDE, PIXELS, TRAINING = 28, 28 * 28, 60_000


class Mnist(ImageTask):
    """See the module."""

    name = "mnist"
    title = "MNIST, pixel by pixel"
    shape = (SIDE, SIDE, 1)
    needs = f"a folder with MNIST's {' and '.join(FILES)}, plain or .gz (https://yann.lecun.com/exdb/mnist)"
    momenta = Momenta(beta=0.6, gamma=0.9, connection=0.1, step=0.99, adaptive_step=0.99)
    published = image_published(
        1,
        bits="0.84 0.85 0.84 0.82 0.80",
        images_per_s="0.45 142.8 139.7 135.5 134.9",
        runs="the adaptive one had fewer epochs than the others' 250",
        first="pixel",
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": paper_preset("MNIST", sized(PIXELS), epochs=250, images=TRAINING, batch=10, lr=1e-4),
        "card": Preset(
            why="The paper's model for 10 epochs, minutes a variant on an H100: 1,200 steps an epoch of 50 "
            "images, five times the paper's batch, and five times its learning rate, a tenth of that in the "
            "last two epochs.",
            size=sized(PIXELS),
            schedule=over_all(TRAINING, PIXELS, epochs=10, batch=50, evaluations=5),
            optimization=Optimization(lr=5e-4, drop_epoch=8),
        ),
        "short": short_preset(PIXELS, iterations=60, batch=8, evaluation_batches=20),
    }

    def read(self, folder: Path) -> tuple[Images, Mapping[str, bytes]]:
        """See `ImageTask.read`."""
        files = read_data(folder, FILES, self.needs)
        train, test = (
            read_idx(str(folder / name), text, (SIDE, SIDE)).reshape(-1, PIXELS)
            for name, text in files.items()
        )
        return (train, test), files


TASK = Mnist()
