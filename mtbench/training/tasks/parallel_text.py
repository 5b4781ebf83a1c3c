"""Two parallel text files a split, read from a folder: ``train.en`` and ``train.de``, plain or gzip."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtbench.errors import BadInput

__all__ = ["SPLITS", "ParallelText", "read_parallel_text"]

SPLITS = ("train", "valid", "test")
FIRST = "en"
"""The language that is translated from where it is one of the two, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class ParallelText:
    """Sentences and their translations, line by line."""

    languages: tuple[str, str]
    """What is translated from, and to: the endings of the files."""
    splits: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Of each of `SPLITS`, the sentences of both."""
    digests: Mapping[str, str]
    """Of each file."""


def read_parallel_text(folder: str) -> ParallelText:
    """The three splits of a folder. Pairs of which a side is empty are left out: they are no sentences, and
    nothing can be said of a target without a place.

    Raises:
        BadInput: a file is missing, is no text in UTF-8, or has other lines than its pair; the line names it.
    """
    where = Path(folder)
    if not where.is_dir():
        raise BadInput(f"--data {folder} is no folder: name one with train.en, train.de, valid.en, ...")
    languages = _languages(where)
    digests, splits = {}, {}
    for split in SPLITS:
        sides = []
        for language in languages:
            file = _file(where, f"{split}.{language}")
            data = file.read_bytes()
            digests[file.name] = hashlib.sha256(data).hexdigest()[:16]
            sides.append(_lines(file, data))
        first, second = sides
        if len(first) != len(second):
            raise BadInput(
                f"{where}: {split}.{languages[0]} has {len(first)} lines and {split}.{languages[1]} has "
                f"{len(second)}: line n of one must translate line n of the other"
            )
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a and b]
        if not pairs:
            raise BadInput(f"{where}: {split}.{languages[0]} has no sentences")
        splits[split] = (tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
    return ParallelText(languages=languages, splits=splits, digests=digests)


def _languages(folder: Path) -> tuple[str, str]:
    """The endings of the two train files."""
    names = (file.name.removesuffix(".gz") for file in folder.glob("train.*"))
    found = sorted({name.removeprefix("train.") for name in names})
    if len(found) != 2:
        there = ", ".join(f"train.{name}" for name in found) or "no train.*"
        raise BadInput(
            f"--data {folder} has {there}: it must hold one pair of languages, such as train.en and "
            "train.de, valid.en, valid.de, test.en, test.de, plain or .gz"
        )
    first, second = found
    return (second, first) if second == FIRST else (first, second)


def _file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise BadInput(f"--data {folder} has no {name} and no {name}.gz")


def _lines(file: Path, data: bytes) -> list[str]:
    try:
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as text in UTF-8: {error}") from error
    # Not splitlines: a sentence may hold characters that Unicode counts as line ends.
    lines = text.removesuffix("\n").split("\n") if text else []
    return [line.strip() for line in lines]
