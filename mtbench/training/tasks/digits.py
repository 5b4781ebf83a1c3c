"""scikit-learn's digits, 8 x 8 pixels of 17 grey levels, which come with that package: small enough for a
CPU.

The levels 0 to 16 are spread over 0 to 255, so that a model may learn that 239 of those never come: bits/dim
here are not those of another data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from mtbench.errors import BadInput
from mtbench.training.settings import Optimization, Preset
from mtbench.training.tasks.image_settings import SMALL, over_all, sized
from mtbench.training.tasks.images import Images, ImageTask
from mtbench.transformer.config import Momenta

__all__ = ["TASK", "Digits"]

SIDE, HIGHEST = 8, 16
TRAINING = 1500
"""Of the 1,797, in their order; the rest is the test set."""
PIXELS = SIDE * SIDE


class Digits(ImageTask):
    """See the module."""

    name = "digits"
    title = "Digits of 8 x 8, pixel by pixel"
    shape = (SIDE, SIDE, 1)
    needs = None
    momenta = Momenta(beta=0.6, gamma=0.9, connection=0.1, step=0.99, adaptive_step=0.99)
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            why="The model and the optimiser that the paper has for MNIST, on digits of 8 x 8: nothing is "
            "published on them.",
            size=sized(PIXELS),
            schedule=over_all(TRAINING, PIXELS, epochs=250, batch=10),
            optimization=Optimization(lr=1e-4),
        ),
        "short": Preset(
            why="A smaller model for a fraction of a minute a variant, for a look on a CPU.",
            size=sized(PIXELS, **SMALL),
            schedule=over_all(TRAINING, PIXELS, epochs=4, batch=10),
            optimization=Optimization(lr=5e-3, drop_epoch=3),
        ),
    }

    def read(self, folder: Path) -> tuple[Images, Mapping[str, bytes]]:
        """See `ImageTask.read`: from the package, wherever that is.

        Raises:
            BadInput: scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise BadInput(
                "the task digits needs scikit-learn, which has its images: pip install 'mtbench[digits]'"
            ) from error
        levels = load_digits().data  # [1797, 64] float64, whole numbers of 0 to 16
        images = np.rint(levels * (255 / HIGHEST)).astype(np.uint8)
        return (images[:TRAINING], images[TRAINING:]), {"digits": images.tobytes()}


TASK = Digits()
