"""What a figure was measured on: hardware and versions. Imports no framework; a worker adds what only its
framework knows."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

__all__ = ["PACKAGES", "cpus", "device_problem", "environment", "gpus"]

PACKAGES = (
    "torch", "triton", "jax", "jaxlib", "numpy", "ml_dtypes", "matplotlib", "fla-core", "flash-attn"
)  # fmt: skip


def environment(*, threads: int, host: bool = False) -> dict[str, Any]:
    """The machine, for run.json. The host's name is left out unless asked for."""
    found: dict[str, Any] = {
        "os": platform.platform(),
        "cpu": _cpu(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "threads": threads,
        "git": _git(),
    }
    if host:
        found["host"] = platform.node()
    return found


def cpus() -> int:
    """The CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> dict[str, Any]:
    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"model": model, "cores": os.cpu_count(), "affinity": cpus(), "machine": platform.machine()}


def _version(name: str) -> str | None:
    from importlib import metadata  # not on the way of `import mtbench`

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the checkout that mtbench runs from; None when it is installed."""
    home = Path(__file__).parents[2]
    git = shutil.which("git")
    if git is None or not (home / ".git").exists():
        return None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run([git, "-C", str(home), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "committed": ask("show", "--no-patch", "--format=%cI", "HEAD"),
        "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
    }


@functools.cache
def _cuda_devices() -> tuple[int, str]:
    """How many GPUs the driver sees, and if none why. Asks the driver itself: no framework is needed."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "there is no NVIDIA driver"
    if status := driver.cuInit(0):
        return 0, f"the NVIDIA driver finds no GPU (error {status})"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value, "" if count.value else "the NVIDIA driver finds no GPU"


def device_problem(device: str) -> str | None:
    """Why this machine does not have the device, or None."""
    if device == "cpu":
        return None
    count, why = _cuda_devices()
    return None if count else why


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, each by the word that CUDA_VISIBLE_DEVICES has for it alone."""
    count, _ = _cuda_devices()
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = map(str, range(count)) if said is None else map(str.strip, said.split(","))
    return tuple(words)[:count]


def gpus() -> list[dict[str, Any]]:
    """Name, driver and memory of every GPU, by nvidia-smi."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return []
    done = subprocess.run(
        [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        return []
    found = []
    for line in done.stdout.splitlines():
        name, driver, mebibytes = (part.strip() for part in line.split(","))
        found.append({"name": name, "driver": driver, "memory_bytes": int(mebibytes) << 20})
    return found
