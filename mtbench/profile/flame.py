"""A flame graph of native and Python frames: py-spy, which looks at this process from a process of its own,
in the format of speedscope."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbench.profile.record import Flame

__all__ = ["SPEEDSCOPE", "fold", "py_spy", "record_flame"]

SPEEDSCOPE = "flame.speedscope.json"
SECONDS, RATE = 3, 200
LEAVE_S = 30.0
"""Native frames are looked up at the end, which takes a while."""
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1
LEAST = 0.002
"""Of all the time: frames with less are in the file and not in the tree."""
MOST_DEPTH = 60
LOOP = "repeat_calls"
"""The function in which the calls are made: what is above it says nothing of them."""
FORBIDDEN = ("permission denied", "eperm", "operation not permitted")


def py_spy() -> str | None:
    """Where it is: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def record_flame(call: Callable[[], object], folder: Path) -> tuple[Flame | None, str]:
    """Repeat a call while py-spy looks. The tree and, where there is none, why, in one line."""
    program = py_spy()
    if program is None:
        return None, "py-spy is not installed (pip install py-spy)"
    if sys.platform == "linux":
        # Where the kernel lets a process be traced by its parents alone (Yama), this one says who may.
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)
    file = folder / SPEEDSCOPE
    words = [program, "record", "--native", "--pid", str(os.getpid()), "--duration", str(SECONDS)]
    words += ["--rate", str(RATE), "--format", "speedscope", "--output", str(file)]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        repeat_calls(call, process)
        told = process.communicate(timeout=LEAVE_S)[1]
    if process.returncode or not file.is_file():
        return None, problem(told, process.returncode)
    return fold(json.loads(file.read_text(encoding="utf-8"))), ""


def repeat_calls(call: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until whoever looks has ended."""
    while process.poll() is None:
        call()


def problem(told: str, code: int | None) -> str:
    """py-spy's complaint in one line.

    >>> problem("Error: Permission denied (os error 13)", 1)
    'this machine forbids ptrace, which py-spy needs (in a container: --cap-add SYS_PTRACE)'
    """
    if any(word in told.lower() for word in FORBIDDEN):
        return "this machine forbids ptrace, which py-spy needs (in a container: --cap-add SYS_PTRACE)"
    lines = [line for line in told.splitlines() if line.strip()]
    return f"py-spy failed (exit code {code}): {lines[-1].strip()[:300] if lines else 'it says nothing'}"


def fold(told: Mapping[str, Any]) -> Flame:
    """A speedscope file as one tree, from the repeating loop down; a thread that does not run through it has
    its own name."""
    frames: Sequence[Mapping[str, Any]] = told["shared"]["frames"]
    root: dict[str, Any] = {"seconds": 0.0, "children": {}}
    for thread in told["profiles"]:
        for stack, weight in zip(thread["samples"], thread["weights"], strict=True):
            names = [_name(frames[index]) for index in stack]
            loops = [at for at, name in enumerate(names) if name.startswith(LOOP)]
            below = names[loops[-1] + 1 :] if loops else [_thread(thread["name"]), *names]
            _add(root, below[:MOST_DEPTH], float(weight))
    return _tree("all", root, LEAST * root["seconds"])


def _add(node: dict[str, Any], names: Sequence[str], seconds: float) -> None:
    node["seconds"] += seconds
    for name in names:
        node = node["children"].setdefault(name, {"seconds": 0.0, "children": {}})
        node["seconds"] += seconds


def _tree(name: str, node: Mapping[str, Any], least: float) -> Flame:
    children = sorted(node["children"].items(), key=lambda item: -item[1]["seconds"])
    return Flame(
        name=name,
        seconds=node["seconds"],
        children=tuple(_tree(n, child, least) for n, child in children if child["seconds"] > least),
    )


def _name(frame: Mapping[str, Any]) -> str:
    file = Path(str(frame.get("file") or "")).name
    return f"{frame['name']} ({file})" if file else str(frame["name"])


def _thread(name: str) -> str:
    """Without the numbers, which say nothing.

    >>> _thread('Process 12 Thread 34 "MainThread"')
    'thread MainThread'
    """
    return f"thread {name.split(chr(34))[1]}" if name.count('"') == 2 else "thread without a name"
