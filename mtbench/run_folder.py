"""A run folder as the process that writes it has it: locked, appended to row by row, never half written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mtbench.errors import BadInput, StorageError
from mtbench.results import SCHEMA_VERSION, Measurement, Run, read_rows

__all__ = ["RunFolder"]

HEADER, ROWS, LOCK = "run.json", "measurements.jsonl", "run.lock"


class RunFolder:
    """One writer at a time: whoever holds its lock, which the operating system takes back when the process
    ends, however it ends. Make one by `create` or `resume`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(f"{folder} is being written by another run: wait, or name another") from None
        except OSError as error:
            raise BadInput(f"{folder} cannot be written: {error.strerror}") from error
        self._rows: dict[str, Measurement] = {}
        self._file = os.open(folder / ROWS, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)

    @classmethod
    def create(cls, folder: Path | str) -> RunFolder:
        """A new one.

        Raises:
            BadInput: it is a file, already holds a run, or cannot be created.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise BadInput(f"--out {folder} is a file, not a folder: name another")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--out {folder} cannot be written: {error.strerror}") from error
        _refuse_a_run(folder)
        run_folder = cls(folder)
        try:
            _refuse_a_run(folder)  # of two that begin at once, the other may have come and gone
        except BaseException:
            run_folder.close()
            raise
        return run_folder

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
            run_folder._repair()
            run = Run.load(folder)
        except BaseException:
            run_folder.close()
            raise
        run_folder._rows = {row.id: row for row in run}
        return run_folder, run

    def _repair(self) -> None:
        text = (self.folder / ROWS).read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rest = text[len(whole) :]
        if rest and not read_rows(rest)[0]:
            os.ftruncate(self._file, len(whole))
        elif rest:
            self._write(b"\n")

    @property
    def rows(self) -> Mapping[str, Measurement]:
        """What is on the disk, by id."""
        return self._rows

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write run.json whole: a reader sees the old one or the new one, never half of one.

        Raises:
            StorageError: it cannot be written.
        """
        text = json.dumps({"schema": SCHEMA_VERSION, **header}, indent=2, allow_nan=False)
        self._replace(HEADER, text + "\n")

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
        self._replace(ROWS, "".join(json.dumps(row.to_row(), allow_nan=False) + "\n" for row in rows))
        os.close(self._file)
        self._file = os.open(self.folder / ROWS, os.O_RDWR | os.O_APPEND)

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # a disk that is full can still cut a file short
                os.ftruncate(self._file, size)
            raise self._storage_error(ROWS, error) from error

    def _replace(self, name: str, text: str) -> None:
        temporary = self.folder / f"{name}.new"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise self._storage_error(name, error) from error

    def _storage_error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder / name} cannot be written: {error.strerror}; the {len(self._rows)} rows before it "
            f"are kept: make room, then `mtbench run --resume {self.folder}`"
        )

    def close(self) -> None:
        """No row can be written after; another run may."""
        os.close(self._file)
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_a_run(folder: Path) -> None:
    """Whatever a run has left: a header, or rows that have lost theirs. Before its header is there a run that
    is killed leaves nothing that counts."""
    if (folder / HEADER).exists():
        raise BadInput(
            f"--out {folder} already holds a run: name another folder, or go on with it by "
            f"`mtbench run --resume {folder}`"
        )
    rows = folder / ROWS
    if rows.is_file() and rows.stat().st_size:
        raise BadInput(
            f"--out {folder} already holds rows ({ROWS}) without their {HEADER}: name another folder"
        )
