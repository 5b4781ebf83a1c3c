"""A worker process, as the runner holds it: started, watched, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import mtbench
from mtbench.sweep.channel import Channel

__all__ = ["Ended", "WorkerProcess"]

POLL_S = 0.05
LEAVE_S = 5.0

ENVIRONMENT = {
    # Taking most of a GPU at the start would starve the backend measured next.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


@dataclass(frozen=True)
class Ended(Exception):
    """The worker is gone, and why: the status and reason of the row it was at."""

    status: str
    reason: str
    signal: int | None = None
    """What ended it, where a signal did."""


class WorkerProcess:
    """One worker. Every method but `stop` may raise `Ended`, after which only `stop` is of use."""

    def __init__(
        self,
        backend: str,
        device: str,
        *,
        threads: int,
        log: Path,
        memory_limit: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        self._memory_limit = memory_limit
        self._log = log
        self._stage = "start"
        arguments = ["-P", "-m", "mtbench.sweep.worker", str(theirs.fileno()), backend, device, str(threads)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(device, threads) | dict(environment or {}),
                start_new_session=True,  # Ctrl-C reaches the runner alone, which decides
            )
        theirs.close()
        self._channel = Channel(ours.detach())
        self._memory = psutil.Process(self._process.pid)

    def hello(self, timeout_s: float) -> dict[str, Any]:
        """What it says when its framework is imported: ``problem`` and ``environment``."""
        return self._await("hello", timeout_s)

    def ceilings(self, timeout_s: float) -> dict[str, Any]:
        """``copy_bytes_per_s`` and ``matmul_flop_per_s`` of its device (`mtbench.measure.ceilings`)."""
        self._stage = "ceilings"
        return self._ask({"want": "ceilings"}, "ceilings", timeout_s, lambda stage: None)

    def measure(
        self, task: dict[str, Any], timeout_s: float, on_stage: Callable[[str], None]
    ) -> dict[str, Any]:
        """The row of one task."""
        return self._ask({"want": "row", **task}, "row", timeout_s, on_stage)

    def peak_memory(self, task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """``bytes`` and ``method`` of one task's peak memory."""
        self._stage = "memory"
        return self._ask({"want": "peak", **task}, "peak", timeout_s, lambda stage: None)

    def _ask(
        self, task: dict[str, Any], wanted: str, timeout_s: float, on_stage: Callable[[str], None]
    ) -> dict[str, Any]:
        try:
            self._channel.send(task)
        except OSError:
            raise self._died() from None
        return self._await(wanted, timeout_s, on_stage)

    def _await(
        self, wanted: str, timeout_s: float, on_stage: Callable[[str], None] = lambda stage: None
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            if self._channel.waiting(POLL_S):
                try:
                    message = self._channel.receive()
                except (EOFError, OSError):
                    raise self._died() from None
                if wanted in message:
                    answer: dict[str, Any] = message[wanted]
                    return answer
                self._stage = message["stage"]
                on_stage(self._stage)
            elif self._process.poll() is not None and not self._channel.waiting(0):
                # A process that a kernel forked may hold the other end open.
                raise self._died()
            if time.monotonic() > deadline:
                raise Ended("timeout", f"not done after {timeout_s:g} s, at: {self._stage}")
            self._check_memory()

    def _check_memory(self) -> None:
        with contextlib.suppress(psutil.Error):
            used = self._memory.memory_info().rss
            if used > self._memory_limit:
                raise Ended(
                    "oom",
                    f"resident memory passed the limit of {self._memory_limit / 2**30:.1f} GiB, "
                    f"at: {self._stage}",
                )

    def _died(self) -> Ended:
        code = self._process.wait()
        how = f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        return Ended(
            "crash",
            f"the worker ended ({how}), at: {self._stage}{self._last_words()}",
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
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(device: str, threads: int) -> dict[str, str]:
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
