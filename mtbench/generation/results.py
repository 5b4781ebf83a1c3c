"""A folder of generated images, read: a row for each checkpoint, size of image and batch. Imports no
framework.

It holds ``run.json`` (kind ``generation``), ``rows.jsonl`` and ``samples/``; the page is made from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from mtbench.errors import BadInput, StorageError
from mtbench.floor import read_ceilings
from mtbench.locked_folder import HEADER, LockedFolder
from mtbench.results import json_float, read_float, read_header

__all__ = ["KIND", "Check", "Generated", "GenerationFolder", "GenerationRun"]

SCHEMA_VERSION = 1
KIND = "generation"
LIKELIHOODS = ("sampler_bits", "parallel_bits", "largest")
"""Of a `Check`, what may be no number."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Whether the parallel form gives what was drawn the likelihood that the sampler saw."""

    images: int
    sampler_bits: float
    """Bits/dim of those images, their mean, as the sampler added them up."""
    parallel_bits: float
    """The same by the parallel form in float32, on eager torch."""
    largest: float
    """The largest difference of one image, bits/dim."""
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether no image is further off than the tolerance; not where a number is none."""
        return self.largest <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One checkpoint at one size of image and one batch."""

    name: str
    """The training's: a variant with a seed."""
    variant: str
    shape: tuple[int, int, int]
    """Rows, columns and channels."""
    trained_size: bool
    """Whether the model was trained on images of that size; of others only the times mean something."""
    batch: int
    status: str
    """``ok``, ``oom``, or ``disagrees``."""
    reason: str = ""
    seconds: tuple[float, ...] = ()
    """Of each round: all pixels of a batch of images, from the first to the last, waited for."""
    parts_s: tuple[float, ...] = ()
    """Of the last round's pixels, an equal number each in their order, seconds a pixel's step."""
    held_bytes: int | None = None
    """What the attention keeps of an image, for all of its pixels, in all layers."""
    peak_bytes: int | None = None
    """The most memory in use at a time, of the whole batch, beyond the model's; on a GPU."""
    moved_bytes: float | None = None
    """What the attention must read and write of what it keeps, for a pixel of an image; its mean."""
    check: Check | None = None

    @property
    def positions(self) -> int:
        """Pixels times channels."""
        rows, columns, channels = self.shape
        return rows * columns * channels

    @property
    def images_per_s(self) -> float | None:
        """By the median round."""
        return self.batch / median(self.seconds) if self.seconds else None

    @property
    def latency_s(self) -> float | None:
        """Seconds a pixel's step."""
        return median(self.seconds) / self.positions if self.seconds else None

    def share_of_roof(self, copy_bytes_per_s: float | None) -> float | None:
        """The time in which a copy moves `moved_bytes` of every image, over the time that a step takes."""
        if self.latency_s is None or self.moved_bytes is None or not copy_bytes_per_s:
            return None
        return self.batch * self.moved_bytes / copy_bytes_per_s / self.latency_s

    def to_line(self) -> dict[str, Any]:
        """The line of rows.jsonl."""
        line = asdict(self)
        if self.check is not None:  # a likelihood that is no number is what it is there to find
            line["check"] |= {name: json_float(getattr(self.check, name)) for name in LIKELIHOODS}
        return line

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Generated:
        """The row that `to_line` wrote."""
        known = {part.name for part in fields(cls)}
        data: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in line.items() if key in known
        }
        check = data.pop("check", None)
        if check is not None:
            check = Check(**check | {name: read_float(check[name]) for name in LIKELIHOODS})
        return cls(**data, check=check)


@dataclass(frozen=True, kw_only=True)
class GenerationRun:
    """A folder, read."""

    folder: Path
    header: Mapping[str, Any]
    rows: tuple[Generated, ...]

    @classmethod
    def load(cls, folder: Path | str) -> GenerationRun:
        """Read it; lines that are none are left out.

        Raises:
            BadInput: nothing of the kind is in it, or a newer mtbench wrote it.
        """
        folder = Path(folder)
        header = read_header(folder, newest=SCHEMA_VERSION, kind=KIND)
        file = folder / GenerationFolder.ROWS
        rows = []
        for line in file.read_bytes().splitlines() if file.exists() else ():
            try:
                rows.append(Generated.from_line(json.loads(line)))
            except (ValueError, TypeError, AttributeError):
                continue
        return cls(folder=folder, header=header, rows=tuple(rows))

    @property
    def copy_bytes_per_s(self) -> float | None:
        """What a copy reached on a GPU; None where it was not measured."""
        return read_ceilings(self.header.get("workers"))["cuda"].copy_bytes_per_s


class GenerationFolder(LockedFolder):
    """The one writer of such a folder. Make one by `create`."""

    ROWS = "rows.jsonl"
    SCHEMA = SCHEMA_VERSION
    COMMAND = "mtbench generate"

    @classmethod
    def _refuse_a_run(cls, folder: Path) -> None:
        """See `LockedFolder`; nothing goes on with such a run."""
        rows = folder / cls.ROWS
        if (folder / HEADER).exists() or (rows.is_file() and rows.stat().st_size):
            raise BadInput(f"--out {folder} already holds a run: name another folder")

    def _storage_error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder / name} cannot be written: {error.strerror}; {self.kept()}: make room, and "
            "begin anew"
        )

    def kept(self) -> str:
        """See `LockedFolder.kept`."""
        return "every row before it is kept"

    def append(self, row: Generated) -> None:
        """Write one row and force it to the disk.

        Raises:
            StorageError: it cannot be written; every earlier one is as it was.
        """
        self._write((json.dumps(row.to_line(), allow_nan=False) + "\n").encode())

    def samples(self, name: str) -> Path:
        """The sheet of a checkpoint's samples."""
        return self.folder / "samples" / f"{name}.png"
