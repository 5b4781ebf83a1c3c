"""Writing into a folder that somebody else may have filled."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and never through a link that a run folder may hold.

    Raises:
        OSError: it cannot be written; its `filename` is the path.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what a full disk took of it is room again
            temporary.unlink(missing_ok=True)
        error.filename = str(path)  # a write says no name
        raise
