"""Where compiled programs are kept from one process to the next."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """``$XDG_CACHE_HOME/mtbench/name``, in ``~/.cache`` where that is not set. Nothing is created."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtbench" / name
