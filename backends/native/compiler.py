"""The machine's C++ compiler, and what it built before.

A library lies in ``$XDG_CACHE_HOME/mtbench/native`` (``~/.cache`` where that is not set), under a name made
of the source, the flags, and the macros that the compiler predefines under these flags: they say its version
and, by ``-march=native``, which instructions this CPU has. It is put there by renaming a finished file: two
processes that build at once each put the same one.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from mtbench.caches import cache_folder
from mtbench.errors import BackendFailure

__all__ = ["FLAGS", "SOURCE", "command", "library", "missing", "version"]

SOURCE = Path(__file__).with_name("attention.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-pthread")
NAMES = ("c++", "g++", "clang++")


def command() -> list[str] | None:
    """The compiler's command line: $CXX, split as a shell would, else the first of `NAMES` on the path."""
    for name in [os.environ["CXX"]] if os.environ.get("CXX") else NAMES:
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    return None


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if command() is not None:
        return None
    if asked := os.environ.get("CXX"):
        return f"the C++ compiler $CXX is not found: {asked}"
    return f"no C++ compiler is found ({', '.join(NAMES)}; $CXX names another)"


def version() -> str:
    """The first line that the compiler says of itself.

    Raises:
        BackendFailure: there is no compiler, or it fails.
    """
    return (_run("--version").splitlines() or ["?"])[0]


@functools.cache
def library(**constants: int) -> ctypes.CDLL:
    """The source compiled with the constants as macros, from the cache where it has it, and loaded.

    Raises:
        BackendFailure: there is no compiler, it fails, or the cache cannot be written.
    """
    flags = [*FLAGS, *(f"-D{name}={value}" for name, value in constants.items())]
    macros = _run(*flags, "-dM", "-E", "-x", "c++", os.devnull)
    key = hashlib.sha256("\0".join([*flags, macros, SOURCE.read_text()]).encode()).hexdigest()[:32]
    path = cache_folder("native") / f"{key}.so"
    try:
        if not path.exists():
            _build(path, flags)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendFailure(f"the native library cannot be kept or loaded: {error}") from error


def _build(path: Path, flags: list[str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
        built = Path(folder) / path.name
        _run(*flags, "-shared", "-fPIC", str(SOURCE), "-o", str(built))
        built.replace(path)


def _run(*arguments: str) -> str:
    words = command()
    if words is None:
        raise BackendFailure(missing() or "")
    done = subprocess.run([*words, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        why = lines[0] if lines else f"exit code {done.returncode}"
        raise BackendFailure(f"the C++ compiler {shlex.join(words)} fails: {why}")
    return done.stdout
