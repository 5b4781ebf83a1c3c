"""Small data sets in the files of real ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from mtbench.training.tasks import Task, load_task

__all__ = ["cifar_folder", "idx", "image_folder", "mnist_folder", "opened"]


def idx(images: np.ndarray) -> bytes:
    return (
        struct.pack(">I", 0x0800 | images.ndim)
        + struct.pack(f">{images.ndim}I", *images.shape)
        + images.tobytes()
    )


def mnist_folder(folder: Path, train: int = 30, test: int = 7) -> Path:
    """Noise of 28 x 28; the training images are compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (train + test, 28, 28)).astype(np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(noise[:train])))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(noise[train:]))
    return folder


def cifar_folder(folder: Path, each: int = 2) -> Path:
    """Noise of 32 x 32 in three colours, as many records in each of the six files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (each, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def image_folder(name: str, folder: Path) -> str | None:
    """The data of an image task; None where the task has its own."""
    made = {"mnist": mnist_folder, "cifar10": cifar_folder}
    return str(made[name](folder)) if name in made else None


def opened(name: str, folder: Path) -> Task:
    """An image task with its data."""
    return load_task(name).open(image_folder(name, folder))
