"""The processor's own counters, by Linux's perf: instructions, cycles, cache misses, as far as the machine
lets a process count them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["EVENTS", "count", "read_counts"]

EVENTS = (
    "instructions",
    "cycles",
    "cache-references",
    "cache-misses",
    "branch-misses",
    "page-faults",
    "context-switches",
    "task-clock",
)
WAIT_S = 10.0
NOT_COUNTED = ("<not supported>", "<not counted>")


def count(call: Callable[[], object], calls: int) -> tuple[dict[str, float], str]:
    """Every event of so many calls, a call, and what to know of those that are missing, in one line."""
    if sys.platform != "linux":
        return {}, "perf is of Linux"
    perf = shutil.which("perf")
    if perf is None:
        return {}, "perf is not installed"
    with TemporaryDirectory() as folder:
        control, answer, output = (Path(folder) / name for name in ("control", "answer", "counts"))
        os.mkfifo(control)
        os.mkfifo(answer)
        # Attached before, switched on for the calls alone (--delay=-1: off at first).
        words = [perf, "stat", "-x", ",", "-o", str(output), "--delay=-1", "-e", ",".join(EVENTS)]
        words += ["-p", str(os.getpid()), f"--control=fifo:{control},{answer}"]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                told = _counted(process, control, answer, call, calls)
            finally:
                process.kill()
        text = output.read_text() if output.is_file() else ""
    if not text:
        lines = [line for line in told.splitlines() if line.strip() not in ("", "Error:")]
        return {}, f"perf may not count here: {lines[0].strip()[:200] if lines else 'it says nothing'}"
    return read_counts(text, calls)


def _counted(
    process: subprocess.Popen[str], control: Path, answer: Path, call: Callable[[], object], calls: int
) -> str:
    # Opened for both ways, as opening one end alone would wait for a perf that has ended.
    switch, heard = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in (control, answer))
    try:
        if _asked(process, switch, heard, b"enable\n"):
            for _ in range(calls):
                call()
            _asked(process, switch, heard, b"disable\n")
            process.send_signal(signal.SIGINT)
        return process.communicate(timeout=WAIT_S)[1]
    except subprocess.TimeoutExpired:
        return "it did not end"
    finally:
        os.close(switch)
        os.close(heard)


def _asked(process: subprocess.Popen[str], switch: int, heard: int, words: bytes) -> bool:
    """Whether perf has done it."""
    os.write(switch, words)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([heard], [], [], 0.05)[0]:
            return os.read(heard, 64).startswith(b"ack")
    return False


def read_counts(text: str, calls: int) -> tuple[dict[str, float], str]:
    r"""Perf's lines of value, unit and event with commas between.

    >>> read_counts("8000,,instructions,900,100.00,,\n<not supported>,,cycles,0,100.00,,", 4)
    ({'instructions': 2000.0}, 'this machine does not let perf count cycles')
    """
    found: dict[str, float] = {}
    missing = []
    for line in text.splitlines():
        parts = line.split(",")
        if line.startswith("#") or len(parts) < 3:
            continue
        event = parts[2].partition(":")[0]
        if parts[0] in NOT_COUNTED:
            missing.append(event)
        else:
            found[event] = float(parts[0]) / calls
    why = f"this machine does not let perf count {', '.join(missing)}" if missing else ""
    return found, why
