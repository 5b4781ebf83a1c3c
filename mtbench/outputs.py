"""Where commands write, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mtbench.errors import BadInput

__all__ = ["BAD_INPUT", "INTERRUPTED", "dated", "write"]

BAD_INPUT = 2
INTERRUPTED = 130
"""Exit codes, as a shell has them."""


def dated(what: str) -> Path:
    """A folder here that was not there a second ago: ``mtbench-WHAT-TIME``."""
    return Path(f"mtbench-{what}-{datetime.now(UTC):%Y%m%d-%H%M%S}")


def write(option: str, file: Path, text: str) -> None:
    """A file, and the folders above it. A letter that UTF-8 has no bytes for, as in the name of a file that
    is no UTF-8, becomes a question mark.

    Raises:
        BadInput: it cannot be written where `option` says.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"{option} {file} cannot be written: {error.strerror}") from error
