"""The errors that a user's input can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["BackendFailure", "BadInput", "StorageError", "nearest"]


class BadInput(ValueError):
    """A value the user gave cannot be used; the message is one line that names it and the way out.

    The command line prints the message alone and exits with 2.
    """


class BackendFailure(RuntimeError):
    """A backend could not be loaded, or broke its own contract (wrong shape, dtype or name)."""


class StorageError(RuntimeError):
    """A result could not be written; what was written before is whole. One line, as for `BadInput`."""


def nearest(value: str, known: Iterable[str]) -> str:
    """The tail of an error line: the nearest known name where there is one, and all of them.

    >>> nearest("sofmax", ["softmax", "linear"])
    "did you mean 'softmax'? known: softmax, linear"
    """
    names = list(known)
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
