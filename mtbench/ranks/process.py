"""The process of one rank.

Run as ``python -P -m mtbench.ranks.process FD BACKEND DEVICE THREADS RANK RANKS RENDEZVOUS PARENT``;
`mtbench.ranks.group` starts it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, cast

from mtbench.frameworks import Framework, load_framework
from mtbench.measure.memory import settle_allocator
from mtbench.ranks.arrays import read_inputs, written
from mtbench.ranks.member import Member, SpreadBackend
from mtbench.registry import load_backend
from mtbench.spec import Case
from mtbench.sweep.channel import Channel
from mtbench.sweep.child import die_with_parent

__all__ = ["main"]

METERED = 3
"""Calls of which the exchange is measured; the one that stood still the longest counts."""


def main(handle: int, name: str, device: str, threads: int, rank: int, ranks: int, rendezvous: str) -> None:
    """Join the others, then do what is asked for until the other end hangs up."""
    channel = Channel(handle)
    try:
        settle_allocator()
        backend = load_backend(name)
        framework = load_framework(backend.framework)
        framework.start(device, threads)
        spread = cast(SpreadBackend, backend)
        spread.join(device, rank, ranks, rendezvous)
        channel.send({"ready": {}})
        work = _Work(spread, framework, device)
        while True:
            try:
                task = channel.receive()
            except (EOFError, OSError):
                return
            channel.send({task["want"]: getattr(work, task.pop("want"))(**task)})
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the case's outcome)
        traceback.print_exc()
        memory = "framework" in locals() and framework.is_out_of_memory(error)
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
        channel.send({"failed": {"status": "oom" if memory else "error", "reason": text}})


class _Work:
    """What a rank can be asked for."""

    def __init__(self, backend: SpreadBackend, framework: Framework, device: str) -> None:
        self._backend, self._framework, self._device = backend, framework, device
        self._member: Member | None = None
        self._case: Case | None = None
        self._result: Any = None

    @property
    def _there(self) -> Member:
        assert self._member is not None  # noqa: S101  (the order of messages)
        return self._member

    def build(self, case: dict[str, Any], form: str) -> dict[str, Any]:
        """What it chose for itself."""
        self._member = self._result = None
        self._framework.release()
        self._case = Case.from_dict(case)
        self._member = self._backend.member(self._case, form)
        return {"config": dict(self._member.config), "layout": self._member.layout}

    def load(self, folder: str) -> dict[str, Any]:
        """Inputs from a folder of `mtbench.ranks.arrays`."""
        assert self._case is not None  # noqa: S101
        self._there.load(read_inputs(Path(folder), self._case))
        return {}

    def call(self) -> dict[str, Any]:
        """Whose results `outputs` writes."""
        self._result = self._there()
        self._there.wait(self._result)
        return {}

    def outputs(self, folder: str) -> dict[str, Any]:
        """Into a folder of `mtbench.ranks.arrays`. The results are gone then."""
        assert self._case is not None  # noqa: S101
        whole = written(Path(folder), self._case, "r+")
        for name, parts in self._there.outputs(self._result).items():
            for (first, last), part in zip(self._there.pieces, parts, strict=True):
                whole[name][:, :, first:last] = part
        self._result = None
        return {}

    def sample(self) -> dict[str, Any]:
        """Milliseconds of this rank, from when all are ready; `outputs` can have what was timed."""
        self._result = None  # two calls' outputs at once would be more memory than a call's
        call = self._there.repeated()
        self._framework.flush_cache(self._device)
        self._there.barrier()
        began = time.perf_counter_ns()
        self._result = call()
        self._there.wait(self._result)
        return {"ms": (time.perf_counter_ns() - began) / 1e6}

    def peak(self) -> dict[str, Any]:
        """Of one call."""
        self._result = None
        self._there.barrier()
        peak = self._framework.peak_memory(self._there, self._device)  # type: ignore[arg-type]
        return {"bytes": peak.bytes, "method": peak.method}

    def traffic(self) -> dict[str, Any]:
        """See `Member.metered`."""
        found = [self._there.metered() for _ in range(METERED)]
        return {"sent_bytes": found[0][0], "exposed_ms": max(waited for _, waited in found)}


if __name__ == "__main__":
    faulthandler.enable()
    die_with_parent()
    if os.getppid() != int(sys.argv[8]):
        sys.exit(0)  # the parent ended before it could be followed
    main(
        int(sys.argv[1]),
        sys.argv[2],
        sys.argv[3],
        int(sys.argv[4]),
        int(sys.argv[5]),
        int(sys.argv[6]),
        sys.argv[7],
    )
