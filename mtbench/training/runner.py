"""The run: every job trained in a process of its own, several side by side, and each epoch on disk as it
ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from mtbench.errors import BackendFailure
from mtbench.results import read_float
from mtbench.sweep.child import ChildProcess, Ended
from mtbench.training.examined import Examined
from mtbench.training.folder import TrainingFolder
from mtbench.training.results import FINAL, EpochRow, TrainingRun
from mtbench.training.settings import Job

__all__ = ["Progress", "Settings", "TrainingRunner"]

START_TIMEOUT_S = 600.0
"""Importing torch from a cold disk can take a minute, and compiling the kernels of a first step a few
more."""
LEAVE_TIMEOUT_S = 60.0
"""From being told to leave: an epoch, a checkpoint."""
TICK_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How jobs are run, beside what they are."""

    parallel: int = 1
    """Jobs side by side on a device."""
    gpus: Sequence[str] = ()
    """Of several devices each GPU, as CUDA_VISIBLE_DEVICES names it; none where jobs have what this process
    has."""
    every_s: float = 30.0
    """Least seconds between two checkpoints of a job."""
    timeout_s: float = 600.0
    """The longest that a job may say nothing: an epoch and its evaluation."""
    memory_limit_bytes: int
    """Resident memory at which a job's process is ended."""
    time_limit_s: float | None = None
    """After which every job is told to leave."""

    def environments(self) -> list[Mapping[str, str]]:
        """What each of the jobs that run side by side has in its environment; as many as there may be."""
        apart: list[Mapping[str, str]] = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self.gpus]
        return self.parallel * (apart or [{}])  # one on every GPU before a second on any


class Progress:
    """What is told while it runs, from several threads, one at a time; a display overrides these."""

    def begin(self, jobs: Sequence[Job], epochs: int, before: int) -> None:
        """Jobs that are to be trained, epochs of all jobs of the run, and those that are there already."""

    def epoch(self, job: Job, row: EpochRow) -> None:
        """An epoch is on disk."""

    def ended(self, job: Job, status: str, reason: str) -> None:
        """A job is."""


class TrainingRunner:
    """Runs what a folder lacks into it."""

    def __init__(
        self,
        folder: TrainingFolder,
        header: dict[str, Any],
        run: TrainingRun,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._folder, self._header, self._settings, self._progress = folder, header, settings, progress
        self._run = run
        self._lock = threading.Lock()
        """Over the folder, the header and the display."""
        self._places: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for environment in settings.environments():
            self._places.put(environment)
        self._leave = threading.Event()
        self._rating = ""
        """The job that measures what the device reaches; empty where none does."""
        self._failure: BaseException | None = None

    def run(self) -> bool:
        """Train every job that is not final. Returns whether the time limit cut it off.

        Raises:
            KeyboardInterrupt: after every job has saved a checkpoint and left.
            StorageError: an epoch could not be written; the processes are ended.
        """
        for name in ("checkpoints", "logs"):
            (self._folder.folder / name).mkdir(exist_ok=True)
        lacking = [trained.job for trained in self._run if trained.status not in FINAL]
        self._header |= {"outcome": "running", "finished": None}
        self._folder.write_header(self._header)
        self._progress.begin(
            lacking,
            sum(trained.job.schedule.epochs for trained in self._run),
            sum(len(trained.epochs) for trained in self._run),
        )
        interrupted = self._all(lacking)
        if self._failure is not None:
            raise self._failure
        left = [job for job in lacking if self._header["jobs"].get(job.id, {}).get("status") not in FINAL]
        cut = bool(left) and self._leave.is_set()
        self._header |= {"finished": _now(), "outcome": "interrupted" if cut else "complete"}
        self._folder.write_header(self._header)
        if interrupted:
            raise KeyboardInterrupt
        return cut

    def _all(self, jobs: Sequence[Job]) -> bool:
        """Whether Ctrl-C ended it: the jobs are told to leave then, and waited for."""
        limit = self._settings.time_limit_s
        deadline = None if limit is None else time.monotonic() + limit
        interrupted = False
        with ThreadPoolExecutor(self._places.qsize()) as threads:
            # A thread starts a process and sees it end: on Linux a process dies with the thread that made it.
            pending: set[Future[None]] = {threads.submit(self._placed, job) for job in jobs}
            while pending:
                try:
                    _, pending = wait(pending, timeout=TICK_S, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt:
                    interrupted = True
                    self._leave.set()
                if deadline is not None and time.monotonic() > deadline:
                    self._leave.set()
        return interrupted

    def _placed(self, job: Job) -> None:
        """One job, where there is a place: there are as many as threads. Nothing it raises is lost."""
        if self._leave.is_set():
            return
        environment = self._places.get_nowait()
        try:
            self._train(job, environment)
        except BaseException as error:  # noqa: BLE001  (of a thread: the run raises it)
            self._failure = self._failure or error
            self._leave.set()
        finally:
            self._places.put(environment)

    def _train(self, job: Job, environment: Mapping[str, str]) -> None:
        """One job, to its end."""
        kernels = job.kernels
        try:
            process = ChildProcess(
                "mtbench.training.worker",
                [],
                device=kernels.device,
                threads=kernels.threads,
                log=self._folder.log(job.id),
                memory_limit=self._settings.memory_limit_bytes,
                environment=environment,
            )
        except OSError as error:
            raise BackendFailure(f"no process for {job.id} could be started: {error.strerror}") from error
        try:
            status, reason = self._listen(job, process)
        except Ended as end:
            status, reason = end.status, end.reason
        except BaseException:
            process.stop(kill=True)
            raise
        process.stop(kill=status != "done")
        with self._lock:
            if self._rating == job.id:
                self._rating = ""
            self._header["jobs"][job.id] |= {"status": status, "reason": reason}
            self._folder.write_header(self._header)
            self._progress.ended(job, status, reason)

    def _listen(self, job: Job, process: ChildProcess) -> tuple[str, str]:
        """What the process says, to its last word: a status and a reason."""
        known: dict[str, Any] = {}
        with self._lock:
            self._header["jobs"][job.id] = known
        process.send(
            {
                "job": job.to_dict(),
                "checkpoint": str(self._folder.checkpoint(job.id).resolve()),
                "shared": str(self._folder.shared.resolve()),
                "every_s": self._settings.every_s,
                "rated": self._is_to_rate(job),
            }
        )
        timeout, told = START_TIMEOUT_S, False
        deadline = time.monotonic() + timeout
        while True:
            if self._leave.is_set() and not told:
                process.send({"leave": True})
                told, timeout = True, LEAVE_TIMEOUT_S
                deadline = time.monotonic() + timeout
            try:
                message = process.poll(deadline, timeout)
            except Ended as end:
                if told and end.status == "timeout":  # it was amid an epoch, and none of its own is too long
                    return (
                        "cut off",
                        f"it had not left after {timeout:g} s: its last checkpoint is what is kept",
                    )
                raise
            if message is None:
                continue
            if not told:
                timeout = self._settings.timeout_s if "row" in message else START_TIMEOUT_S
                deadline = time.monotonic() + timeout
            if "row" in message:
                self._keep(job, process, message["row"])
            elif "ask" in message:  # what came before it is written
                process.send({"kept": True})
            elif "hello" in message:
                with self._lock:
                    hello = message["hello"]
                    process.stage = f"epoch {hello.pop('epochs_before') + 1}"
                    known["parameters"] = hello.pop("parameters")
                    name = f"torch on {job.kernels.device}"
                    self._header["workers"][name] = self._header["workers"].get(name, {}) | hello
                    self._folder.write_header(self._header)
            else:
                ended = message["ended"]
                return ended["status"], ended["reason"]

    def _is_to_rate(self, job: Job) -> bool:
        """Whether a job measures what the device reaches: the first of a run, and another where that came to
        nothing. Two at once would measure each other."""
        with self._lock:
            known = any("copy_bytes_per_s" in worker for worker in self._header["workers"].values())
            if known or self._rating:
                return False
            self._rating = job.id
            return True

    def _keep(self, job: Job, process: ChildProcess, said: dict[str, Any]) -> None:
        evaluation = said["evaluation"] or {"loss": None, "metric": None, "metric_error": None}
        row = EpochRow(
            job=job.id,
            epoch=said["epoch"],
            lr=said["lr"],
            loss=tuple(map(read_float, said["loss"])),
            metric=tuple(map(read_float, said["metric"])),
            seconds=tuple(said["seconds"]),
            captured=said["captured"],
            peak_memory_bytes=said["peak_memory_bytes"],
            memory_method=said["memory_method"],
            held_out_loss=evaluation["loss"],
            held_out_metric=evaluation["metric"],
            held_out_metric_error=evaluation["metric_error"],
            tokens=said["tokens"],
            examined=None if said["examined"] is None else Examined.from_dict(said["examined"]),
        )
        process.stage = f"epoch {row.epoch + 2}"
        with self._lock:
            self._folder.append(row)
            self._progress.epoch(job, row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
