"""What the machine can reach, measured in the run that the rows are in: how fast it copies, and how fast it
multiplies matrices. A row's roofline is reckoned by these.

A ceiling is what can be reached, so of the samples the fastest counts; the arrays are noise, as zeros may be
compressed. On a GPU by the device clock, its L2 flushed; on a CPU by the wall clock, the copied array several
times as large as its last cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtbench.frameworks import Framework, load_framework
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.measure.clocks import Sampling, device_samples, wall_samples, warm_up
from mtbench.measure.cupti import CuptiError, recorder
from mtbench.spec import AttentionSpec, Case, Device, Dtype

__all__ = ["ceilings", "last_cache_bytes"]

WIDTH = 128
"""Of the copied array [rows, WIDTH]."""
COPIED_BYTES = {"cpu": 128 << 20, "cuda": 512 << 20}
"""At the least. A GPU's is ten times a large L2."""
MOST_COPIED_BYTES = 1 << 30
BEYOND_CACHE = 4
"""How many times a CPU's last cache the copied array has."""
MATMUL_DTYPES: dict[str, tuple[Dtype, ...]] = {"cpu": ("float32",), "cuda": ("bfloat16", "float32")}
"""bfloat16 on a CPU has no product in NumPy worth the name."""
MATMUL_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (8192,)}
"""n of the products of [n, n] matrices, the larger ones while they are fast enough: a large machine is not
filled by a small one."""
SLOW_MS = 6.0
"""A CPU's product that takes longer is not followed by one of eight times the work."""
SAMPLING = {
    "cpu": Sampling(least=5, least_s=0.1, least_slow=3, slow_s=0.05, limit_s=0.1, warmup_s=0.0),
    "cuda": Sampling(least=10, least_s=0.0, limit_s=0.1, warmup_s=0.01),
}

Function = Callable[[Any, Any, Any], Any]


def ceilings(framework: Framework, device: Device, dtypes: Sequence[Dtype] | None = None) -> dict[str, Any]:
    """``copy_bytes_per_s``, reads and writes counted, and ``matmul_flop_per_s`` by dtype. A rate that cannot
    be had is None, or missing: the device clock does not work, or memory is short.

    Args:
        framework: by whose product, and whose copy where it has one.
        device: of what.
        dtypes: of the products; None is `MATMUL_DTYPES`.
    """
    # On a CPU NumPy's copy beside the framework's own: JAX cannot write into memory that is there already,
    # and new pages cost more than the copy.
    copying = {id(f): f for f in (framework, load_framework("numpy") if device == "cpu" else framework)}
    copies = [rate for f in copying.values() if (rate := _copy_rate(f, device)) is not None]
    products = {dtype: _matmul_rate(framework, device, dtype) for dtype in dtypes or MATMUL_DTYPES[device]}
    return {
        "copy_bytes_per_s": max(copies, default=None),
        "matmul_flop_per_s": {dtype: rate for dtype, rate in products.items() if rate is not None},
    }


def _copy_rate(framework: Framework, device: Device) -> float | None:
    """Bytes/s of an array that is read and written: negated in place, or where the framework's arrays cannot
    be changed into a new one. Negated, as a GPU may do a plain copy by another engine."""
    dtype: Dtype = "float32" if device == "cpu" else "bfloat16"
    wanted = BEYOND_CACHE * last_cache_bytes() if device == "cpu" else 0
    size = min(max(COPIED_BYTES[device], wanted), MOST_COPIED_BYTES)
    rows = size // (WIDTH * NUMPY_DTYPES[dtype].itemsize)
    case = _case(device, dtype, seq_len=rows, kv_len=1, head_dim=WIDTH)
    q = _noise(rows, WIDTH, dtype)
    ms = _fastest_ms(framework, _negated, case, Inputs(q=q, k=q[:, :, :1], v=q[:, :, :1]))
    return None if ms is None else 2 * q.nbytes / ms * 1e3


def _negated(q: Any, k: Any, v: Any) -> Any:
    q *= -1
    return q


def _matmul_rate(framework: Framework, device: Device, dtype: Dtype) -> float | None:
    """Operations/s of the best product of two square matrices, 2 n^3 of them."""
    rates = []
    for n in MATMUL_SIZES[device]:
        q = _noise(n, n, dtype)
        inputs = Inputs(q=q, k=q, v=q[..., :1])
        case = _case(device, dtype, seq_len=n, head_dim=n, value_dim=1)
        ms = _fastest_ms(framework, lambda q, k, v: q @ k, case, inputs)
        if ms is None:
            break
        rates.append(2 * n**3 / ms * 1e3)
        if ms > SLOW_MS:
            break
    return max(rates, default=None)


def _case(device: Device, dtype: Dtype, **sizes: Any) -> Case:
    """Its q, k and v are the arrays; it is no attention."""
    spec = AttentionSpec(kind="softmax", causal=False)
    return Case(spec=spec, heads=1, dtype=dtype, device=device, **sizes)


def _noise(rows: int, width: int, dtype: Dtype) -> Array:
    """[1, 1, rows, width], a block of noise again and again."""
    block = np.random.default_rng(0).standard_normal((1024, width)).astype(NUMPY_DTYPES[dtype])
    return np.tile(block, (-(-rows // len(block)), 1))[None, None, :rows]


def _fastest_ms(framework: Framework, function: Function, case: Case, inputs: Inputs) -> float | None:
    sampling = SAMPLING[case.device]
    kernel = framework.kernel(function, case)
    try:
        if case.device == "cuda":
            recorder()
        kernel.load(inputs)
        warm_up(kernel, sampling)
        if case.device == "cuda":
            return device_samples(kernel, lambda: framework.flush_cache("cuda"), sampling)[0].minimum
        return wall_samples(kernel, lambda: None, sampling)[0].minimum
    except CuptiError:
        return None
    except Exception as error:
        if not framework.is_out_of_memory(error):
            raise
        return None
    finally:
        del kernel  # and its arrays
        framework.release()


def last_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """The size of the machine's last cache, all of its parts together; 0 where Linux does not say.

    Each part is counted once, however many CPUs share it.
    """
    parts: dict[tuple[int, str], int] = {}
    for cache in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level, size, shared = ((cache / f).read_text() for f in ("level", "size", "shared_cpu_list"))
        except OSError:
            continue
        if found := re.fullmatch(r"(\d+)K\s*", size):
            parts[int(level), shared] = int(found[1]) << 10
    last = max((level for level, _ in parts), default=0)
    return sum(size for (level, _), size in parts.items() if level == last)
