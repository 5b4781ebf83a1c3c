"""JAX's profiler, and what XLA says of a program."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.profiler

from mtbench.backend import Kernel
from mtbench.frameworks.jax import JaxKernel
from mtbench.frameworks.profiling import bracketed

PROFILE = "device-memory.prof.gz"
"""Of what lives on the device after a call, for pprof."""


def trace(kernel: Kernel, device: str, calls: int, flush: Callable[[], None], file: Path) -> None:
    """See `Profiler.trace`. Python's own frames are left out: they would slow the host."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in bracketed(kernel, calls, flush, jax.profiler.TraceAnnotation):
                pass
        (written,) = Path(folder).rglob("*.trace.json.gz")
        shutil.copyfile(written, file)


def memory(kernel: Kernel, device: str, folder: Path) -> Mapping[str, Any] | None:
    """See `Profiler.memory`: XLA plans a program's memory ahead, so there is no history; what lives on the
    device after the call is told."""
    result = kernel()
    kernel.wait(result)
    jax.profiler.save_device_memory_profile(str(folder / PROFILE))
    arrays = [
        {"bytes": int(array.nbytes), "what": f"{array.dtype}[{','.join(map(str, array.shape))}]"}
        for array in jax.live_arrays()
    ]
    del result
    return {"arrays": arrays}


def work(kernel: Kernel) -> Mapping[str, float]:
    """See `Profiler.work`: XLA's cost analysis, which counts a loop's body once and knows nothing of what a
    custom call does."""
    costs = kernel.compiled.cost_analysis() if isinstance(kernel, JaxKernel) else None
    if not costs:
        return {}
    named = {"flop": "flops", "bytes": "bytes accessed", "transcendentals": "transcendentals"}
    return {name: float(costs[key]) for name, key in named.items() if 0 <= costs.get(key, -1.0) < math.inf}


def programs(kernel: Kernel) -> Mapping[str, str]:
    """See `Profiler.programs`: the HLO that XLA optimised."""
    if not isinstance(kernel, JaxKernel):
        return {}
    return {"optimised.hlo.txt": str(kernel.compiled.as_text())}
