"""A process of ours: started, listened to, watched, and ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import mtbench
from mtbench.sweep.channel import Channel

__all__ = ["ChildProcess", "Ended", "child_environment", "die_with_parent"]

POLL_S = 0.05
LEAVE_S = 5.0
PR_SET_PDEATHSIG = 1

ENVIRONMENT = {
    # Taking most of a GPU at the start would starve the backend measured next.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


@dataclass(frozen=True)
class Ended(Exception):
    """The process is gone, or has to go, and why: a status and a reason."""

    status: str
    reason: str
    signal: int | None = None
    """What ended it, where a signal did."""


class ChildProcess:
    """One process that runs a module of ours with ``FD`` and further words. Every method but `stop` may raise
    `Ended`, after which only `stop` is of use.

    It is `apart` from this one, in a session of its own, and is ended with all it started; else it ends with
    whatever session this one is in."""

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        *,
        device: str,
        threads: int,
        log: Path,
        memory_limit: int,
        environment: Mapping[str, str] | None = None,
        apart: bool = True,
    ) -> None:
        ours, theirs = socket.socketpair()
        self._memory_limit = memory_limit
        self._log = log
        self._apart = apart
        self.stage = "start"
        """What it was last said to be at."""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(device, threads) | dict(environment or {}),
                start_new_session=apart,  # Ctrl-C reaches the runner alone, which decides
            )
        theirs.close()
        self._channel = Channel(ours.detach())
        self._memory = psutil.Process(self._process.pid)

    @property
    def id(self) -> int:
        """The system's, of the process."""
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        try:
            self._channel.send(message)
        except OSError:
            raise self._died() from None

    def ask(
        self,
        task: dict[str, Any],
        wanted: str,
        timeout_s: float,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> dict[str, Any]:
        """Tell it a task, and wait for its answer: see `wait_for`."""
        self.send(task)
        return self.wait_for(wanted, timeout_s, on_stage)

    def wait_for(
        self, wanted: str, timeout_s: float, on_stage: Callable[[str], None] = lambda stage: None
    ) -> dict[str, Any]:
        """What the message of that name holds. Before it there may be others, each a ``stage`` it is at."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.poll(deadline, timeout_s)
            if message is None:
                continue
            if wanted in message:
                answer: dict[str, Any] = message[wanted]
                return answer
            self.stage = message["stage"]
            on_stage(self.stage)

    def poll(self, deadline: float, timeout_s: float) -> dict[str, Any] | None:
        """What it says within `POLL_S`, or None. It may not be silent beyond the deadline, in
        time.monotonic, nor hold more memory than its limit."""
        if self._channel.waiting(POLL_S):
            try:
                return self._channel.receive()
            except (EOFError, OSError):
                raise self._died() from None
        if self._process.poll() is not None and not self._channel.waiting(0):
            # A process that a kernel forked may hold the other end open.
            raise self._died()
        if time.monotonic() > deadline:
            raise Ended("timeout", f"not done after {timeout_s:g} s, at: {self.stage}")
        self._check_memory()
        return None

    def _check_memory(self) -> None:
        with contextlib.suppress(psutil.Error):
            used = self._memory.memory_info().rss
            if used > self._memory_limit:
                raise Ended(
                    "oom",
                    f"resident memory passed the limit of {self._memory_limit / 2**30:.1f} GiB, "
                    f"at: {self.stage}",
                )

    def _died(self) -> Ended:
        code = self._process.wait()
        how = f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        return Ended(
            "crash",
            f"the worker ended ({how}), at: {self.stage}{self._last_words()}",
            signal=-code if code < 0 else None,
        )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            for line in self._log.read_text(errors="replace").splitlines():
                if line.startswith("Fatal Python error"):
                    return f"; {line}"
        return ""

    def stop(self, *, kill: bool) -> None:
        """Hang up, and end it with all it started; `kill` gives an idle one no time to leave by itself."""
        self._channel.close()
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=LEAVE_S)
        with contextlib.suppress(ProcessLookupError):
            if self._apart:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()


def die_with_parent() -> None:
    """In a child: a parent that is killed takes it along, in the middle of its work too. On Linux alone, and
    tied to the thread that started the child, which has to live as long."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def child_environment(device: str, threads: int) -> dict[str, str]:
    """The environment of a process of ours that works on a device."""
    threads_text = str(threads)
    home = str(Path(mtbench.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH")
    found = {
        **os.environ,
        **ENVIRONMENT,
        # -P keeps the folder one stands in off the path; where mtbench lies must be on it.
        "PYTHONPATH": home if not path else os.pathsep.join([home, path]),
        "OMP_NUM_THREADS": threads_text,
        "MKL_NUM_THREADS": threads_text,
        "OPENBLAS_NUM_THREADS": threads_text,
    }
    if device == "cpu":
        found["JAX_PLATFORMS"] = "cpu"
    return found
