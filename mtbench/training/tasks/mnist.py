"""MNIST, 28 x 28 pixels of 256 grey levels, from a folder of its IDX files.

The settings are those of section 4.2 of "Momentum Transformer" (arXiv 2208.00579) and of the code released
with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mtbench.training.published import Published
from mtbench.training.settings import Optimization, Preset, Schedule
from mtbench.training.tasks.idx import read_idx
from mtbench.training.tasks.images import ALL, Images, ImageTask, image_claims, paper_preset, read_data, sized
from mtbench.transformer.config import Momenta

__all__ = ["TASK", "Mnist"]

FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
SIDE, PIXELS, TRAINING = 28, 28 * 28, 60_000
BITS = {
    "softmax": "0.84",
    "linear": "0.85",
    "momentum": "0.84",
    "momentum+momentum": "0.82",
    "momentum+adaptive": "0.80",
}
PUBLISHED = Published(
    source="Nguyen, Baraniuk, Kirby, Osher, Wang: Momentum Transformer, PMLR v190 (2022), arXiv 2208.00579, "
    "table 1",
    remark=(
        "One run each, without intervals; the adaptive one had fewer epochs than the others' 250. The "
        "paper's figures were made by its released code, whose momentum attention and connections are others "
        "than the paper's formulas, and which is given the first pixel of every image, where here it is "
        "predicted, too."
    ),
    values={"metric": BITS},
    claims=image_claims(BITS),
    images_per_s={
        "softmax": "0.45",
        "linear": "142.8",
        "momentum": "139.7",
        "momentum+momentum": "135.5",
        "momentum+adaptive": "134.9",
    },
)


class Mnist(ImageTask):
    """See the module."""

    name = "mnist"
    title = "MNIST, pixel by pixel"
    shape = (SIDE, SIDE, 1)
    needs = f"a folder with MNIST's {' and '.join(FILES)}, plain or .gz (https://yann.lecun.com/exdb/mnist)"
    momenta = Momenta(beta=0.6, gamma=0.9, connection=0.1, step=0.99, adaptive_step=0.99)
    published = PUBLISHED
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": paper_preset("MNIST", sized(PIXELS), epochs=250, images=TRAINING, batch=10, lr=1e-4),
        "card": Preset(
            why="The paper's model for 10 epochs, minutes a variant on an H100: 1,200 steps an epoch of 50 "
            "images, five times the paper's batch, and five times its learning rate, a tenth of that in the "
            "last two epochs.",
            size=sized(PIXELS),
            schedule=Schedule(
                epochs=10,
                iterations=TRAINING // 50,
                batch=50,
                seq_len=PIXELS,
                evaluations=5,
                evaluation_batches=ALL,
            ),
            optimization=Optimization(lr=5e-4, drop_epoch=8),
        ),
        "short": Preset(
            why="A small model for some minutes, for a look on a CPU, held against 160 test images: too "
            "short to test the paper by.",
            size=sized(PIXELS, d_model=64, layers=2, heads=4, head_dim=16, feed_forward=128),
            schedule=Schedule(
                epochs=4,
                iterations=60,
                batch=8,
                seq_len=PIXELS,
                evaluation_batches=20,
            ),
            optimization=Optimization(lr=3e-3, drop_epoch=3),
        ),
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
