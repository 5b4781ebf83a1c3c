"""The folder of a sweep, with a line a row."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mtbench.locked_folder import LockedFolder
from mtbench.results import SCHEMA_VERSION, Measurement, Run, read_rows

__all__ = ["RunFolder"]


class RunFolder(LockedFolder):
    """The one writer of a sweep. Make one by `create` or `resume`."""

    ROWS = "measurements.jsonl"
    SCHEMA = SCHEMA_VERSION
    COMMAND = "mtbench run"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rows: dict[str, Measurement] = {}

    @classmethod
    def resume(cls, folder: Path | str) -> tuple[RunFolder, Run]:
        """An existing one, and what it holds. A last line that was cut off is removed.

        Raises:
            BadInput: it holds no run, a newer mtbench wrote it, or another run is writing it.
        """
        folder = Path(folder)
        Run.load(folder)  # says what is wrong with it before anything is touched
        run_folder = cls(folder)
        try:
            run_folder.repair(lambda line: bool(read_rows(line)[0]))
            run = Run.load(folder)
        except BaseException:
            run_folder.close()
            raise
        run_folder._rows = {row.id: row for row in run}
        return run_folder, run

    @property
    def rows(self) -> Mapping[str, Measurement]:
        """What is on the disk, by id."""
        return self._rows

    def kept(self) -> str:
        """See `LockedFolder.kept`."""
        return f"the {len(self._rows)} rows before it are kept"

    def append(self, measurement: Measurement) -> None:
        """Write one row and force it to the disk; it takes the place of an earlier one of its id.

        Raises:
            StorageError: it cannot be written; every earlier row is as it was.
        """
        self._write((json.dumps(measurement.to_row(), allow_nan=False) + "\n").encode())
        self._rows[measurement.id] = measurement

    def compact(self, order: list[str]) -> None:
        """One line a row, in the order of the ids."""
        rank = {id_: index for index, id_ in enumerate(order)}
        rows = sorted(self._rows.values(), key=lambda row: rank.get(row.id, len(rank)))
        self._replace(self.ROWS, "".join(json.dumps(row.to_row(), allow_nan=False) + "\n" for row in rows))
        os.close(self._file)
        self._file = os.open(self.folder / self.ROWS, os.O_RDWR | os.O_APPEND)
