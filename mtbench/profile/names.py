"""Where the profiles of a run's rows lie."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

__all__ = ["PROFILES", "profile_folder", "profile_name"]

PROFILES = "profiles"
MOST = 100
"""Letters of a name that come from the row's id."""


def profile_name(row_id: str) -> str:
    """A folder's name for a row: its id in letters that every file system takes, and a digest, as two ids may
    be the same in those letters.

    >>> profile_name("jax/chunked/linear-b1")
    'jax-chunked-linear-b1-5138a7'
    """
    digest = hashlib.sha256(row_id.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', row_id)[:MOST]}-{digest}"


def profile_folder(run: Path, row_id: str) -> Path:
    """That of a row, in the run's folder."""
    return run / PROFILES / profile_name(row_id)
