"""The process that measures: one backend on one device, until the runner hangs up.

Run as ``python -P -m mtbench.sweep.worker FD BACKEND DEVICE THREADS``; `mtbench.sweep.runner` starts it.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import traceback
from typing import cast

from mtbench.errors import BackendFailure
from mtbench.frameworks import load_framework
from mtbench.measure.ceilings import ceilings
from mtbench.measure.clocks import Sampling
from mtbench.measure.memory import settle_allocator
from mtbench.registry import load_backend
from mtbench.spec import Case, Device
from mtbench.sweep.channel import Channel
from mtbench.sweep.child import die_with_parent
from mtbench.sweep.measure import Measurer

__all__ = ["main"]


def main(handle: int, name: str, device: Device, threads: int) -> None:
    """Say hello with the environment, then measure what is asked for."""
    faulthandler.enable()
    die_with_parent()
    settle_allocator()
    channel = Channel(handle)
    try:
        backend = load_backend(name)
        os.environ.update(getattr(backend, "environment", {}))  # before its framework looks
        framework = load_framework(backend.framework)
        framework.start(device, threads)
        problem = framework.device_problem(device)
        environment = {} if problem else framework.environment(device)
    except (ImportError, OSError, BackendFailure) as error:
        traceback.print_exc()
        channel.send({"hello": {"problem": f"{type(error).__name__}: {error}", "environment": {}}})
        return
    channel.send({"hello": {"problem": problem, "environment": environment}})
    measurer = Measurer(backend, framework, device)
    while True:
        # What stands now will stand till the end, and a collection need not walk it again: with torch's
        # compiler loaded that took a good part of a row's time, several times a row.
        gc.freeze()
        try:
            task = channel.receive()
        except (EOFError, OSError):
            gc.unfreeze()  # else Triton and JAX say in the log that all of it leaked
            return
        if task["want"] == "ceilings":
            channel.send({"ceilings": ceilings(framework, device)})
            continue
        case, form = Case.from_dict(task["case"]), task["form"]
        if task["want"] == "peak":
            peak = measurer.peak_memory(case, form)
            channel.send({"peak": {"bytes": peak.bytes, "method": peak.method}})
            continue
        measurement = measurer.measure(
            case,
            form,
            Sampling(**task["sampling"]),
            lambda stage: channel.send({"stage": stage}),
            memory=task["memory"],
        )
        channel.send({"row": measurement.to_row()})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], cast(Device, sys.argv[3]), int(sys.argv[4]))
