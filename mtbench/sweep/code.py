"""Which code made a figure: a fingerprint of every file that decides what is computed or how it is timed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import mtbench
from mtbench.registry import BUILTIN_BACKENDS, entry_point_module, import_part

__all__ = ["fingerprints"]

DECIDING = ("spec.py", "inputs.py", "oracle", "measure", "frameworks", "ranks", "sweep/measure.py")
"""Of mtbench itself. The rest plans, shows and stores."""


def fingerprints(backends: Iterable[str], deciding: Iterable[str] = DECIDING) -> dict[str, str]:
    """The first 16 hex digits of the SHA-256 of each file, by a name without the machine's folders.

    Args:
        backends: as asked for (`load_backend`): a name, or the path of a file. mtbench's own are taken
            whole, as they share files; of an installed package's backend its own module.
        deciding: files and folders of mtbench itself.
    """
    home = Path(mtbench.__file__).parent
    found = {
        f"mtbench/{path.relative_to(home).as_posix()}": path
        for part in deciding
        for path in _sources(home / part)
    }
    for asked in backends:
        if asked in BUILTIN_BACKENDS:
            folder = Path(import_part("backends").__path__[0])
            found |= {f"backends/{p.relative_to(folder).as_posix()}": p for p in _sources(folder)}
        elif asked.endswith(".py"):
            found[Path(asked).name] = Path(asked)
        elif (file := _module_of_entry_point(asked)) is not None:
            found[f"{asked}: {file.name}"] = file
    return {name: _digest(path) for name, path in sorted(found.items())}


def _sources(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for kind in ("*.py", "*.cpp") for p in path.rglob(kind))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _module_of_entry_point(name: str) -> Path | None:
    module = sys.modules.get(entry_point_module(name) or "")
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)
