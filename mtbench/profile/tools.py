"""The parts that other programs make of a GPU's call: Nsight Compute's counters, and proton's tree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mtbench.profile import ncu
from mtbench.profile.parts import LEFT_OUT, Asked, Findings, Tell
from mtbench.sweep.child import child_environment

__all__ = ["by_tools"]

PROTON_S = 180.0
MOST_LAUNCHES = 400
"""Kernels of a call that ncu counts, each for some hundredths of a second."""
PROTON = "proton"


def by_tools(asked: Asked, findings: Findings, tell: Tell, *, launches: float | None, triton: bool) -> None:
    """Add what they find, or why they do not. On a GPU alone: a CPU has no counters of theirs.

    Args:
        asked: what is profiled.
        findings: gets ``ncu``, and ``proton`` where Triton's kernels run.
        tell: is told what comes next.
        launches: kernels of a call, where that is known.
        triton: whether the framework is the one that Triton's profiler works beside.
    """
    environment = child_environment(asked.case.device, asked.threads)
    rows: list[dict[str, str]] = []
    if "ncu" in asked.without:
        why = LEFT_OUT
    elif launches is not None and launches > MOST_LAUNCHES:
        why = f"ncu runs every kernel several times, and a call has {launches:,.0f}, over {MOST_LAUNCHES}"
    else:
        tell("ncu")
        rows, why = ncu.count_call(asked.backend, asked.case, asked.form, asked.threads, environment)
    if rows:
        findings.found["ncu"] = {"kernels": ncu.by_kernel(rows)}
    else:
        findings.missing["ncu"] = why
    if triton and PROTON in asked.without:
        findings.missing[PROTON] = LEFT_OUT
    elif triton:
        tell("proton")
        _proton(asked, findings, environment)


def _proton(asked: Asked, findings: Findings, environment: Mapping[str, str]) -> None:
    file = asked.folder / PROTON
    words = [sys.executable, "-P", "-m", "mtbench.profile.replay", asked.backend, asked.form]
    words += [str(asked.threads), json.dumps(asked.case.to_dict()), str(file)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=PROTON_S, env=dict(environment)
        )
    except subprocess.TimeoutExpired:
        findings.missing[PROTON] = f"not done after {PROTON_S:g} s"
        return
    written = _written(file)
    if done.returncode or written is None:
        lines = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        findings.missing[PROTON] = f"it did not run: {lines[0][:300]}"
    else:
        findings.found[PROTON] = {"file": written.name}


def _written(file: Path) -> Path | None:
    return next(iter(sorted(file.parent.glob(f"{file.name}*.hatchet"))), None)
