"""What the image tasks share: images pixel by pixel, bits per dimension.

The loss is the mean over pixels and channels of -log of their probability, in nats, and bits/dim is that over
log 2. An epoch is a pass over the training images in an order of its own. Held out is the whole test set, and
of each of its images bits/dim is kept, so that a mean over them has an interval.
"""

from __future__ import annotations

import copy
import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from mtbench.errors import BadInput
from mtbench.inputs import Array
from mtbench.training.metric import BITS_PER_DIM
from mtbench.training.settings import Schedule
from mtbench.training.tasks import Task
from mtbench.transformer.config import ModelConfig, ModelSize

__all__ = ["ImageTask", "Images", "read_data"]

Images = tuple[Array, Array]
"""Training and test images, [images, pixels] uint8; of colour red, green and blue of each pixel in turn."""


class ImageTask(Task):
    """A data set of images of one shape. A subclass reads it."""

    metric = BITS_PER_DIM
    causal = True
    decoder = True
    held_out_of = "test images"
    shape: ClassVar[tuple[int, int, int]]
    """Rows, columns and channels."""
    needs: ClassVar[str | None]
    """What a folder of its data holds, and where that is to be had; None where it comes with a package."""

    def __init__(self) -> None:
        self._train = self._test = np.zeros((0, self.positions), np.uint8)
        self._files: Mapping[str, str] = {}

    @property
    def positions(self) -> int:
        """Pixels times channels."""
        return math.prod(self.shape)

    @abstractmethod
    def read(self, folder: Path) -> tuple[Images, Mapping[str, bytes]]:
        """Training and test images, and the files they were read from.

        Raises:
            BadInput: a file is missing, or is not what its name says.
        """

    def open(self, data: str | None) -> Self:
        """See `Task.open`."""
        if self.needs is None and data is not None:
            raise BadInput(f"--data {data}: the task {self.name} has its data with it: leave it out")
        if self.needs is not None and data is None:
            raise BadInput(f"the task {self.name} needs --data DIR, {self.needs}")
        if data is not None and not Path(data).is_dir():
            raise BadInput(f"--data {data} is no folder: name {self.needs}")
        opened = copy.copy(self)
        (opened._train, opened._test), files = self.read(Path(data or ""))
        opened._files = {name: hashlib.sha256(text).hexdigest()[:16] for name, text in files.items()}
        return opened

    def fingerprints(self) -> Mapping[str, str]:
        """See `Task.fingerprints`."""
        return self._files

    def check(self, size: ModelSize, schedule: Schedule) -> None:
        """See `Task.check`."""
        if schedule.seq_len != self.positions:
            raise BadInput(
                f"--seq-len {schedule.seq_len}: an image of the task {self.name} has {self.positions} "
                "positions: leave it out"
            )

    def batches(
        self, schedule: Schedule, size: ModelSize, *, seed: int, epoch: int, held_out: bool = False
    ) -> Mapping[str, Array]:
        """See `Task.batches`: ``pixels``, [steps, batch, positions] uint8, the channels of a pixel in turn;
        where held out ``there``, [steps, batch], is false for what fills up the last batch."""
        if held_out:
            steps = min(schedule.evaluation_batches, -(-len(self._test) // schedule.batch))
            wanted = steps * schedule.batch
            pixels = np.zeros((wanted, self.positions), np.uint8)
            found = self._test[:wanted]
            pixels[: len(found)] = found
            there = np.arange(wanted) < len(found)
            shape = (steps, schedule.batch)
            return {"pixels": pixels.reshape(*shape, -1), "there": there.reshape(shape)}
        rng = np.random.default_rng((seed, 1, epoch))
        wanted = schedule.iterations * schedule.batch
        passes = -(-wanted // len(self._train))
        order = np.concatenate([rng.permutation(len(self._train)) for _ in range(passes)])[:wanted]
        return {"pixels": self._train[order].reshape(schedule.iterations, schedule.batch, -1)}

    def model(self, config: ModelConfig, attend: Any) -> Any:
        """See `Task.model`: a causal decoder of pixels."""
        from mtbench.transformer.pixels import PixelTransformer

        return PixelTransformer(config, attend)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.loss`: nats and bits of a pixel's channel."""
        nats = -model(batch["pixels"]).mean()
        return nats, nats.detach() / math.log(2)

    def evaluated(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """See `Task.evaluated`: of each image."""
        nats = -model(batch["pixels"]).double().mean(-1)[batch["there"]]
        return nats, nats / math.log(2)


def read_data(folder: Path, names: Sequence[str], needs: str | None) -> dict[str, bytes]:
    """Files of a folder, by name, as they lie there or compressed with gzip under the same name and ``.gz``.

    Raises:
        BadInput: one is missing or cannot be read.
    """
    import gzip
    import zlib

    found = {}
    for name in names:
        plain, packed = folder / name, folder / f"{name}.gz"
        try:
            if plain.is_file():
                found[name] = plain.read_bytes()
            elif packed.is_file():
                found[name] = gzip.decompress(packed.read_bytes())
            else:
                raise BadInput(f"--data {folder} has no {name}, plain or .gz: name {needs}")
        except (OSError, EOFError, zlib.error) as error:
            told = getattr(error, "strerror", None) or str(error)
            raise BadInput(f"--data {folder}: {name} cannot be read ({told}): put it there anew") from error
    return found
