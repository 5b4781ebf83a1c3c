"""A run folder as the process that writes it has it: locked, appended to line by line, never half written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self

from filelock import FileLock, Timeout

from mtbench.errors import BadInput, StorageError

__all__ = ["HEADER", "LockedFolder", "write_atomically"]

HEADER, LOCK = "run.json", "run.lock"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """A file of what `write` puts into it, whole and on the disk, or the one that was there before.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


class LockedFolder:
    """One writer at a time: whoever holds its lock, which the operating system takes back when the process
    ends, however it ends. Make one by `create`; a subclass says what its lines are."""

    ROWS: ClassVar[str]
    """The file of lines."""
    SCHEMA: ClassVar[int]
    COMMAND: ClassVar[str]
    """What goes on with a run that was cut off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise BadInput(f"{folder} is being written by another run: wait, or name another") from None
        except OSError as error:
            raise BadInput(f"{folder} cannot be written: {error.strerror}") from error
        self._file = os.open(folder / self.ROWS, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)

    @classmethod
    def create(cls, folder: Path | str) -> Self:
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
        cls._refuse_a_run(folder)
        made = cls(folder)
        try:
            cls._refuse_a_run(folder)  # of two that begin at once, the other may have come and gone
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def _refuse_a_run(cls, folder: Path) -> None:
        """Whatever a run has left: a header, or lines that have lost theirs. Before its header is there a run
        that is killed leaves nothing that counts."""
        if (folder / HEADER).exists():
            raise BadInput(
                f"--out {folder} already holds a run: name another folder, or go on with it by "
                f"`{cls.COMMAND} --resume {folder}`"
            )
        rows = folder / cls.ROWS
        if rows.is_file() and rows.stat().st_size:
            raise BadInput(
                f"--out {folder} already holds rows ({cls.ROWS}) without their {HEADER}: name another folder"
            )

    def repair(self, is_line: Callable[[bytes], bool]) -> None:
        """Cut off a last line that is not whole; end one that is, and lacks its line break."""
        text = (self.folder / self.ROWS).read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rest = text[len(whole) :]
        if rest and not is_line(rest):
            os.ftruncate(self._file, len(whole))
        elif rest:
            self._write(b"\n")

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Write run.json whole: a reader sees the old one or the new one, never half of one.

        Raises:
            StorageError: it cannot be written.
        """
        text = json.dumps({"schema": self.SCHEMA, **header}, indent=2, allow_nan=False)
        self._replace(HEADER, text + "\n")

    def kept(self) -> str:
        """What a reader still has when a line cannot be written."""
        raise NotImplementedError

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
            raise self._storage_error(self.ROWS, error) from error

    def _replace(self, name: str, text: str) -> None:
        try:
            write_atomically(self.folder / name, lambda file: file.write(text.encode()))
        except OSError as error:
            raise self._storage_error(name, error) from error

    def _storage_error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.folder / name} cannot be written: {error.strerror}; {self.kept()}: make room, then "
            f"`{self.COMMAND} --resume {self.folder}`"
        )

    def close(self) -> None:
        """No line can be written after; another run may."""
        os.close(self._file)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
