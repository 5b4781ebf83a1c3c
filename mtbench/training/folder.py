"""The folder of a training run, as the process that writes it has it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from mtbench.errors import BadInput
from mtbench.locked_folder import LockedFolder, write_atomically
from mtbench.training.results import PACKED, SCHEMA_VERSION, EpochRow, TrainingRun, read_epochs

__all__ = ["TrainingFolder"]


class TrainingFolder(LockedFolder):
    """The one writer of a training run, with a line an epoch. Make one by `create` or `resume`."""

    ROWS = "epochs.jsonl"
    SCHEMA = SCHEMA_VERSION
    COMMAND = "mtbench train"

    @classmethod
    def resume(cls, folder: Path | str) -> tuple[TrainingFolder, TrainingRun]:
        """An existing one, and what it holds. A last line that was cut off is removed.

        Raises:
            BadInput: it holds no training run or one that is packed, a newer mtbench wrote it, or another
                process is writing it.
        """
        folder = Path(folder)
        TrainingRun.load(folder)  # says what is wrong with it before anything is touched
        if (folder / PACKED).exists():
            raise BadInput(f"{folder / PACKED} is packed: unpack it first, by `gunzip {folder / PACKED}`")
        found = cls(folder)
        try:
            found.repair(lambda line: bool(read_epochs(line)[0]))
            return found, TrainingRun.load(folder)
        except BaseException:
            found.close()
            raise

    def kept(self) -> str:
        """See `LockedFolder.kept`."""
        return "every epoch before it is kept"

    def append(self, row: EpochRow) -> None:
        """Write one epoch and force it to the disk.

        Raises:
            StorageError: it cannot be written; every earlier one is as it was.
        """
        self._write((json.dumps(row.to_line(), allow_nan=False) + "\n").encode())

    @property
    def shared(self) -> Path:
        """The folder of what all trainings share; not there where they share nothing."""
        return self.folder / "shared"

    def share(self, files: Mapping[str, bytes]) -> None:
        """Write what all trainings share.

        Raises:
            OSError: it cannot be written.
        """
        for name, data in files.items():
            self.shared.mkdir(exist_ok=True)
            write_atomically(self.shared / name, functools.partial(_write, data))

    def checkpoint(self, job: str) -> Path:
        """A job's checkpoint."""
        return self.folder / "checkpoints" / f"{job}.pt"

    def log(self, job: str) -> Path:
        """What a job's process prints."""
        return self.folder / "logs" / f"{job}.log"


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)
