"""JAX: functions compiled ahead of time by XLA, and Pallas kernels inside them."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.metadata
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from mtbench.backend import Kernel
from mtbench.caches import cache_folder
from mtbench.frameworks import PeakMemory
from mtbench.frameworks.layout import from_bhnd, to_bhnd
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.measure.memory import host_peak
from mtbench.spec import Case

POOL_PEAK = "most used of the CUDA memory pool, after a reset, in a worker of its own"


class JaxKernel:
    """A jitted function, lowered and compiled when built; differentiated by jax.vjp."""

    def __init__(
        self,
        function: Callable[[Any, Any, Any], Any],
        case: Case,
        layout: str,
        untimed: str | None,
        config: Mapping[str, Any],
        place: jax.sharding.Sharding | None = None,
        options: Mapping[str, bool | str] | None = None,
    ) -> None:
        self.layout = layout
        self.untimed = untimed
        self.config = config
        self._device = _device(case.device)
        self._backward = case.mode == "forward_backward"
        self._place = sharding = place or jax.sharding.SingleDeviceSharding(self._device)
        b, h, g, dtype = case.batch, case.heads, case.kv_heads, NUMPY_DTYPES[case.dtype]

        def shape(*bhnd: int) -> jax.ShapeDtypeStruct:
            axes = dict(zip("bhnd", bhnd, strict=True))
            return jax.ShapeDtypeStruct(tuple(axes[axis] for axis in layout), dtype, sharding=sharding)

        shapes = [
            shape(b, h, case.seq_len, case.head_dim),
            shape(b, g, case.kv_len, case.head_dim),
            shape(b, g, case.kv_len, case.value_dim),
        ]
        if self._backward:
            shapes.append(shape(b, h, case.seq_len, case.value_dim))

        def program(q: Any, k: Any, v: Any, *do: Any) -> tuple[Any, ...]:
            if not do:
                return (function(q, k, v),)
            o, pull_back = jax.vjp(function, q, k, v)
            return (o, *pull_back(*do))

        # Also where `start` has not run, in a user's own process: else float32 would be TF32 on a GPU.
        with jax.default_matmul_precision("highest"):
            self.compiled = jax.jit(program, compiler_options=dict(options or {})).lower(*shapes).compile()
        self._arguments: list[jax.Array] = []

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        self._arguments = []  # the last case's arrays go before these come
        arrays = [inputs.q, inputs.k, inputs.v]
        if self._backward:
            if inputs.do is None:
                raise ValueError("mode forward_backward needs do")
            arrays.append(inputs.do)
        # jnp.array copies, also on a CPU, where device_put may alias NumPy's own memory.
        self._arguments = [
            jnp.array(np.ascontiguousarray(from_bhnd(a, self.layout)), copy=True, device=self._place)
            for a in arrays
        ]
        jax.block_until_ready(self._arguments)

    def __call__(self) -> tuple[jax.Array, ...]:
        return self.compiled(*self._arguments)  # type: ignore[no-any-return]

    def wait(self, result: Any) -> None:
        """See `Kernel.wait`."""
        jax.block_until_ready(result)

    def outputs(self, result: Any) -> dict[str, Array]:
        """See `Kernel.outputs`."""
        names = ("o", "dq", "dk", "dv")
        return {
            name: to_bhnd(np.asarray(array), self.layout) for name, array in zip(names, result, strict=False)
        }

    def static_bytes(self) -> int | None:
        """XLA's own estimate of what a call needs beyond its arguments."""
        analysis = self.compiled.memory_analysis()
        if analysis is None:
            return None
        return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def kernel(
    function: Callable[[Any, Any, Any], Any],
    case: Case,
    *,
    layout: str = "bhnd",
    untimed: str | None = None,
    config: Mapping[str, Any] | None = None,
    place: jax.sharding.Sharding | None = None,
    options: Mapping[str, bool | str] | None = None,
) -> Kernel:
    """See `Framework.kernel`. `place` is where the arrays lie, if not on one device; `options` are XLA's, for
    this program alone."""
    return JaxKernel(function, case, layout, untimed, dict(config or {}), place, options)


COMPILED = {"/jax/compilation_cache/cache_misses": "anew", "/jax/compilation_cache/cache_hits": "from_cache"}
"""What JAX calls the two when it tells of them."""


SIMULATED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def start(device: str, threads: int) -> None:
    """float32 means float32. On a CPU this process keeps to `threads` CPUs for each device that XLA
    simulates, where the system can be told so (Linux): XLA has a thread for each CPU that it may use.

    Compiled programs are kept, however short they took, where JAX_COMPILATION_CACHE_DIR says or in the user's
    own cache folder.
    """
    if device == "cpu" and hasattr(os, "sched_setaffinity"):
        simulated = SIMULATED.search(os.environ.get("XLA_FLAGS", ""))
        wanted = threads * (int(simulated[1]) if simulated else 1)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:wanted])
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _counts()


@functools.cache
def _counts() -> Counter[str]:
    """Counts from its first call on."""
    counted: Counter[str] = Counter(dict.fromkeys(COMPILED.values(), 0))

    def count(event: str, **_: Any) -> None:
        if event in COMPILED:
            counted[COMPILED[event]] += 1

    jax.monitoring.register_event_listener(count)
    return counted


def compilations() -> Mapping[str, int]:
    """See `Framework.compilations`."""
    return dict(_counts())


def _device(device: str) -> jax.Device:
    return jax.local_devices(backend=device)[0]


def device_problem(device: str) -> str | None:
    """See `Framework.device_problem`."""
    try:
        _device(device)
    except RuntimeError as error:
        return f"jax {jax.__version__} finds no {device} device: {str(error).splitlines()[0]}"
    return None


def environment(device: str) -> dict[str, Any]:
    """See `Framework.environment`."""
    found: dict[str, Any] = {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "default_matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "cpu_affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }
    if device == "cuda":
        chip = _device(device)
        found |= {"gpu": chip.device_kind, "platform_version": chip.client.platform_version}
    return found


@functools.cache
def _cache_flusher() -> tuple[Any, jax.Array]:
    buffer = jax.device_put(jnp.ones((256 << 20) // 4, jnp.float32), _device("cuda"))
    return jax.jit(jnp.max).lower(buffer).compile(), buffer


def flush_cache(device: str) -> None:
    """See `Framework.flush_cache`."""
    if device == "cuda":
        read, buffer = _cache_flusher()
        jax.block_until_ready(read(buffer))


def peak_memory(kernel: Kernel, device: str) -> PeakMemory:
    """See `Framework.peak_memory`. On a GPU the peak is that of CUDA's default memory pool, which JAX
    allocates from where XLA_PYTHON_CLIENT_ALLOCATOR says ``cuda_async`` (`MEMORY_WORKERS`). XLA's own
    ``peak_bytes_in_use`` has no reset and holds what compiling used."""
    if device != "cuda":
        return host_peak(kernel)
    if os.environ.get("XLA_PYTHON_CLIENT_ALLOCATOR") != "cuda_async":
        return PeakMemory(bytes=None, method="needs a process with XLA_PYTHON_CLIENT_ALLOCATOR=cuda_async")
    gc.collect()
    kernel.wait(kernel())
    pool = _DefaultPool()
    before = pool.reset()
    kernel.wait(kernel())
    return PeakMemory(bytes=pool.peak() - before, method=POOL_PEAK)


class _DefaultPool:
    """The default memory pool of device 0, by the CUDA driver."""

    USED, USED_HIGH = 7, 8  # CU_MEMPOOL_ATTR_USED_MEM_CURRENT and _HIGH

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._pool = ctypes.c_void_p()
        self._check(self._driver.cuDeviceGetDefaultMemPool(ctypes.byref(self._pool), 0))

    def reset(self) -> int:
        """Set the peak to what is used now, in bytes, which it returns."""
        zero = ctypes.c_uint64(0)
        self._check(self._driver.cuMemPoolSetAttribute(self._pool, self.USED_HIGH, ctypes.byref(zero)))
        return self._read(self.USED)

    def peak(self) -> int:
        """The most used since the reset, in bytes."""
        return self._read(self.USED_HIGH)

    def _read(self, attribute: int) -> int:
        value = ctypes.c_uint64()
        self._check(self._driver.cuMemPoolGetAttribute(self._pool, attribute, ctypes.byref(value)))
        return value.value

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise RuntimeError(f"the CUDA driver refused to read its memory pool (error {status})")


def static_memory(kernel: Kernel) -> int | None:
    """See `Framework.static_memory`: XLA's own analysis."""
    return kernel.static_bytes() if isinstance(kernel, JaxKernel) else None


def is_out_of_memory(error: BaseException) -> bool:
    """See `Framework.is_out_of_memory`."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def release() -> None:
    """See `Framework.release`."""
    jax.clear_caches()
    gc.collect()
