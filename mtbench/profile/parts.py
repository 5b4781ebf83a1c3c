"""The parts of a profile, each made in a process of its own: what a profiler does to a process stays there,
and one that crashes costs its part alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtbench.profile.made import caches
from mtbench.spec import Case
from mtbench.sweep.child import ChildProcess, Ended

__all__ = ["LEFT_OUT", "OPTIONAL", "TRACE", "Asked", "Findings", "Tell", "find"]

TIMEOUT_S = 300.0
XLA_DUMP = "--xla_dump_to="
TRACE = "trace.json.gz"
OPTIONAL = ("resident", "counters", "flame", "made", "trace", "work", "memory", "ncu", "proton")
"""Parts that a profile can do without."""
LEFT_OUT = "left out, as was asked for"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is profiled, and where."""

    backend: str
    """As it was asked for: a name, or the path of a file."""
    case: Case
    form: str
    threads: int
    memory_limit_bytes: int
    folder: Path
    """Of the profile; it is there."""
    cache: Path
    """A folder that is empty, and gone afterwards."""
    calls: int
    without: frozenset[str] = frozenset()
    """Of `OPTIONAL`, what is left out."""


@dataclass
class Findings:
    """What came of each part: by its name, or why it is missing."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, answer: dict[str, Any]) -> None:
        """An answer of a worker."""
        if "failed" in answer:
            self.missing[part] = answer["failed"]
        else:
            self.found[part] = answer


Tell = Callable[[str], None]


def find(asked: Asked, tell: Tell, *, machine: bool) -> Findings:
    """Every part that a worker makes. The first process is looked at from outside alone, the second by its
    framework's profiler, and what its compiler makes begins with nothing in its caches.

    Args:
        asked: what is profiled.
        tell: is told what comes next.
        machine: whether what the machine reaches is to be measured, too.
    """
    findings = Findings()
    folder = str(asked.folder)
    outside: list[tuple[str, dict[str, Any]]] = [
        *([("machine", {"dtype": asked.case.dtype})] if machine else []),
        ("build", _case(asked)),
        ("busy", {}),
        ("resident", {}),
        ("counters", {"calls": asked.calls}),
        ("flame", {"folder": folder}),
    ]
    inside: list[tuple[str, dict[str, Any]]] = [
        ("build", _case(asked)),
        ("made", {"cache": str(asked.cache), "folder": folder}),
        ("trace", {"calls": asked.calls, "file": str(asked.folder / TRACE)}),
        ("work", {}),
        ("memory", {"folder": folder}),
    ]
    _process(asked, outside, findings, tell, log="outside", environment={})
    environment = caches(asked.cache)
    dump = f"{XLA_DUMP}{asked.cache / 'xla'}"
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {dump}".strip()
    _process(asked, inside, findings, tell, log="inside", environment=environment)
    return findings


def _case(asked: Asked) -> dict[str, Any]:
    return {"case": asked.case.to_dict(), "form": asked.form}


def _process(
    asked: Asked,
    tasks: list[tuple[str, dict[str, Any]]],
    findings: Findings,
    tell: Tell,
    *,
    log: str,
    environment: Mapping[str, str],
) -> None:
    """Its tasks one after another. One that fails is missing, and where the kernel cannot be built or the
    process has ended all that come after it."""
    for part in (part for part, _ in tasks if part in asked.without):
        findings.missing[part] = LEFT_OUT
    tasks = [(part, task) for part, task in tasks if part not in asked.without]
    waiting = [part for part, _ in tasks]
    with _worker(asked, log, environment) as worker:
        try:
            answer = worker.wait_for("done", TIMEOUT_S)
            for part, task in tasks:
                if "failed" in answer:
                    break
                tell(part)
                worker.stage = part
                answer = worker.ask({"want": part, **task}, "done", TIMEOUT_S)
                waiting.remove(part)
                if part != "build":
                    findings.add(part, answer)
                    answer = {}
        except Ended as end:
            answer = {"failed": f"{end.status}: {end.reason}"}
    for part in waiting:
        findings.missing[part] = answer.get("failed", "")


@contextlib.contextmanager
def _worker(asked: Asked, log: str, environment: Mapping[str, str]) -> Iterator[ChildProcess]:
    logs = asked.folder / "logs"
    logs.mkdir(exist_ok=True)
    worker = ChildProcess(
        "mtbench.profile.worker",
        [asked.backend, asked.case.device, str(asked.threads)],
        device=asked.case.device,
        threads=asked.threads,
        log=logs / f"{log}.log",
        memory_limit=asked.memory_limit_bytes,
        environment=environment,
    )
    try:
        yield worker
    finally:
        worker.stop(kill=True)
