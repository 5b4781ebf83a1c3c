"""Reading what options are given."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Sequence

from mtbench.errors import BadInput

__all__ = [
    "as_typed",
    "by_kind",
    "check_above_0",
    "check_resumed",
    "flag",
    "floats",
    "names",
    "optional_names",
    "whole_numbers",
]

RANGE = re.compile(r"(\d+):(\d+):x(\d+)")


def flag(name: str) -> str:
    """An option as it is written: ``--head-dim`` for ``head_dim``."""
    return f"--{name.replace('_', '-')}"


def as_typed(options: Sequence[str]) -> str | None:
    """An option of those names with its value, as the command line has it last: ``--rounds 0``; None where it
    has none, and of an argument, whose name is nowhere on it."""
    found = None
    options = [name for name in options if name.startswith("-")]
    for word, after in itertools.zip_longest(sys.argv[1:], sys.argv[2:]):
        option, joined, value = word.partition("=")
        if option in options and (joined or after is not None):
            found = f"{option} {(value if joined else after) or repr('')}"
    return found


def check_above_0(option: str, value: float | None) -> None:
    """That it is a finite number above 0, or that nothing was given.

    Raises:
        BadInput: it is not.
    """
    if value is not None and not 0 < value < math.inf:
        raise BadInput(f"{option} {value}: must be a finite number above 0")


def names(option: str, text: str | None, what: str = "name") -> tuple[str, ...] | None:
    """``a,b`` as ('a', 'b'), each once; None where nothing was given.

    >>> names("--attention", "softmax, linear,softmax")
    ('softmax', 'linear')
    """
    if text is None:
        return None
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise BadInput(f"{option} {text!r}: no {what} is there: give one, or several with commas")
    return found


def optional_names(option: str, text: str | None) -> tuple[str, ...] | None:
    """The same, where ``all`` is as if nothing was given."""
    return None if text == "all" else names(option, text)


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas and geometric ranges, in the order given, each once.

    >>> whole_numbers("--seq-len", "100,256:2048:x2")
    (100, 256, 512, 1024, 2048)
    """
    if text is None:
        return None
    found: list[int] = []
    for word in names(option, text, "number") or ():
        if match := RANGE.fullmatch(word):
            first, last, factor = map(int, match.groups())
            if not (first >= 1 and first <= last and factor >= 2):
                raise BadInput(f"{option} {word}: a range is FIRST:LAST:xFACTOR, as in 256:16384:x2")
            while first <= last:
                found.append(first)
                first *= factor
            continue
        try:
            found.append(int(word))
        except ValueError:
            raise BadInput(
                f"{option} {word}: neither a whole number nor a range such as 256:16384:x2"
            ) from None
    for value in found:
        if value < 1:
            raise BadInput(f"{option} {value}: must be at least 1")
    return tuple(dict.fromkeys(found))


def floats(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers with commas.

    >>> floats("--beta", "0,.9")
    (0.0, 0.9)
    """
    if text is None:
        return None
    found = []
    for word in names(option, text, "number") or ():
        try:
            found.append(float(word))
        except ValueError:
            raise BadInput(f"{option} {word}: not a number") from None
    return tuple(dict.fromkeys(found))


def by_kind(option: str, text: str | None, kinds: Sequence[str]) -> dict[str, str]:
    """Names by kind: ``softmax=sdpa,triton`` is sdpa for softmax, and triton, under the empty name, for all
    that are not named.

    >>> by_kind("--backend", "softmax=sdpa,triton", ("softmax", "linear"))
    {'softmax': 'sdpa', '': 'triton'}
    """
    found: dict[str, str] = {}
    for word in names(option, text) or ():
        kind, between, name = word.rpartition("=")
        if between and (kind not in kinds or not name):
            raise BadInput(f"{option} {word}: KIND=NAME, with KIND one of {', '.join(kinds)}")
        if kind in found:
            raise BadInput(f"{option} {text}: {found[kind]} and {name} for {kind or 'all'}: give one")
        found[kind] = name
    return found


def check_resumed(beside: Sequence[str]) -> None:
    """That the command line has --resume, and no other option than `beside`.

    Raises:
        BadInput: it has others.
    """
    given = [word for word in sys.argv[2:] if word.startswith("--")]
    if wrong := [word for word in given if not word.startswith(("--resume", *beside))]:
        raise BadInput(f"--resume goes on as the run was asked for: leave out {', '.join(wrong)}")
