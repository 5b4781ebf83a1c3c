"""Nsight Compute's counters, of one call in a process of its own: bytes of the memory, use of the tensor
units, occupancy. ncu runs every kernel several times, so its times are not the call's."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mtbench.profile.record import Kernel
from mtbench.spec import Case

__all__ = ["COUNTERS", "by_kernel", "count_call", "read_csv", "with_counters"]

COUNTERS: Mapping[str, tuple[str, ...]] = {
    "time_ns": ("gpu__time_duration.sum",),
    "dram_read_bytes": ("dram__bytes_read.sum",),
    "dram_written_bytes": ("dram__bytes_write.sum",),
    "memory_percent": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",),
    "tensor_percent": (
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
        "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed",
    ),
    "fma_percent": (
        "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_elapsed",
        "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_elapsed",
    ),
    "occupancy_percent": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "registers": ("launch__registers_per_thread",),
}
"""What we call a counter, and ncu's names of it: the first that the chip has counts."""
ALWAYS = ("gpu__time_duration", "launch__")
"""Not in ncu's list of a chip's metrics, and always there."""
UNITS = {"kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9, "usecond": 1e3, "us": 1e3, "msecond": 1e6, "ms": 1e6}
"""ncu is asked for base units, and older ones scale all the same."""
LIST_S, RUN_S = 60.0, 180.0
FORBIDDEN = "ERR_NVGPUCTRPERM"


def count_call(
    backend: str, case: Case, form: str, threads: int, environment: Mapping[str, str]
) -> tuple[list[dict[str, str]], str]:
    """Ncu's rows for one call; where there are none, why, in one line."""
    program = shutil.which("ncu")
    if program is None:
        return [], "ncu (Nsight Compute) is not installed"
    try:
        metrics = _known(program)
        words = [program, "--csv", "--page", "details", "--print-units", "base", "--clock-control", "none"]
        words += ["--profile-from-start", "off", "--target-processes", "all", "--metrics", ",".join(metrics)]
        words += [sys.executable, "-P", "-m", "mtbench.profile.replay", backend, form, str(threads)]
        done = subprocess.run(
            [*words, json.dumps(case.to_dict())],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired as error:
        return [], f"ncu was not done after {error.timeout:g} s"
    rows = read_csv(done.stdout)
    return rows, "" if rows else problem(done.stdout + done.stderr, done.returncode)


@functools.cache
def _known(program: str) -> list[str]:
    """What this chip counts of `COUNTERS`: a name that it does not know would cost them all."""
    done = subprocess.run(
        [program, "--query-metrics"], capture_output=True, text=True, check=False, timeout=LIST_S
    )
    there = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    chosen = []
    for names in COUNTERS.values():
        for name in names:
            if name.startswith(ALWAYS) or name.partition(".")[0] in there:
                chosen.append(name)
                break
    return chosen


def problem(told: str, code: int) -> str:
    """Ncu's complaint in one line.

    >>> problem("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", 1)
    'this machine does not let ncu read the counters (ERR_NVGPUCTRPERM: an administrator can allow it)'
    """
    if FORBIDDEN in told:
        return f"this machine does not let ncu read the counters ({FORBIDDEN}: an administrator can allow it)"
    lines = [line for line in told.splitlines() if line.startswith("==ERROR==")] or told.splitlines()[-1:]
    return f"ncu failed (exit code {code}): {lines[0][:300] if lines else 'it says nothing'}"


def read_csv(text: str) -> list[dict[str, str]]:
    """The rows of ncu's CSV, a metric each; what ncu and the program print around it is passed over."""
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith('"ID"')]
    if not starts:
        return []
    table = "\n".join(line for line in lines[starts[0] :] if line.startswith('"'))
    return [row for row in csv.DictReader(io.StringIO(table)) if row.get("Metric Name")]


def by_kernel(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """By the kernel's name, what its launches of the call have: bytes and times in all, and of parts and
    sizes the mean, weighted by time."""
    ours = {name: counter for counter, names in COUNTERS.items() for name in names}
    launches: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        counter = ours.get(row["Metric Name"])
        value = _number(row.get("Metric Value", ""))
        if counter is not None and value is not None:
            scale = UNITS.get(row.get("Metric Unit", "").lower(), 1.0)
            launches[row["ID"], row["Kernel Name"]][counter] = value * scale
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for _, name in launches):
        found[name] = _together([values for (_, of), values in launches.items() if of == name])
    return found


def _together(launches: Sequence[Mapping[str, float]]) -> dict[str, float]:
    weights = [launch.get("time_ns", 1.0) for launch in launches]
    told = {}
    for counter in dict.fromkeys(key for launch in launches for key in launch):
        values = [launch.get(counter, 0.0) for launch in launches]
        if counter.endswith(("_bytes", "_ns")):
            told[counter] = sum(values)
        else:
            told[counter] = sum(v * w for v, w in zip(values, weights, strict=True)) / (sum(weights) or 1.0)
    return told


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def with_counters(
    kernels: Sequence[Kernel], counted: Mapping[str, Mapping[str, float]]
) -> tuple[Kernel, ...]:
    """The kernels with what ncu counted of them: by their whole name, else by what stands before its
    arguments, where one alone is called so."""
    whole = {_whole(name): values for name, values in counted.items()}
    short: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for name, values in counted.items():
        short[_short(name)].append(values)
    found = []
    for kernel in kernels:
        alike = short[_short(kernel.name)]
        values = whole.get(_whole(kernel.name), alike[0] if len(alike) == 1 else {})
        found.append(replace(kernel, counters=dict(values)))
    return tuple(found)


def _whole(name: str) -> str:
    return re.sub(r"\s+|^void\s", "", name)


def _short(name: str) -> str:
    """The function's own name: the two differ in how they write what is around it.

    >>> _short("void at::native::(anonymous namespace)::softmax<4>(int)"), _short("softmax<4>(T1)")
    ('softmax', 'softmax')
    """
    plain = name.removeprefix("void ").replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    return re.split(r"[<(]", plain)[0].strip().rpartition("::")[2]
