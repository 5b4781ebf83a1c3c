"""PyTorch: eager, compiled, and Triton kernels that take torch tensors."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from mtbench.backend import Kernel
from mtbench.errors import BadInput
from mtbench.frameworks import PeakMemory
from mtbench.frameworks.layout import from_bhnd, to_bhnd
from mtbench.inputs import Array, Inputs
from mtbench.measure.memory import ResidentPeak, host_peak
from mtbench.spec import Case

CUDA_PEAK = "torch.cuda.max_memory_allocated after reset_peak_memory_stats"


def to_tensor(array: Array, device: str) -> torch.Tensor:
    """A contiguous copy on the device; bfloat16 crosses as its bits, which NumPy has no type for."""
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device, copy=True)
    return torch.from_numpy(array).to(device, copy=True)


def to_numpy(tensor: torch.Tensor) -> Array:
    """The inverse of `to_tensor`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


class TorchKernel:
    """A function over torch tensors, differentiated by autograd in mode forward_backward."""

    def __init__(
        self,
        function: Callable[..., Any],
        case: Case,
        layout: str,
        untimed: str | None,
        config: Mapping[str, Any],
        lengths_at_call: bool,
    ) -> None:
        self.layout = layout
        self.untimed = untimed
        self.config = config
        self._function = function
        self._device = case.device
        self._backward = case.mode == "forward_backward"
        self._lengths: tuple[torch.Tensor, ...] = ()
        if lengths_at_call and case.lengths is not None:
            self._lengths = (torch.tensor(case.lengths, dtype=torch.int32, device=case.device),)
        self._qkv: tuple[torch.Tensor, ...] = ()
        self._do: torch.Tensor | None = None

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        self._qkv = tuple(
            self._tensor(a).requires_grad_(self._backward) for a in (inputs.q, inputs.k, inputs.v)
        )
        self._do = self._tensor(inputs.do) if self._backward and inputs.do is not None else None

    def give(self, q: Any, k: Any, v: Any, do: Any = None) -> None:
        """Take tensors as they are, in this kernel's layout and on its device, in the place of `load`; q, k
        and v want their gradients where it has any."""
        self._qkv, self._do = (q, k, v), do

    def _tensor(self, array: Array) -> torch.Tensor:
        return to_tensor(from_bhnd(array, self.layout), self._device)

    def __call__(self) -> tuple[torch.Tensor, ...]:
        if not self._backward:
            with torch.no_grad():
                return (self._function(*self._qkv, *self._lengths),)
        o = self._function(*self._qkv, *self._lengths)
        return (o, *torch.autograd.grad(o, self._qkv, self._do))

    def apply(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> Any:
        """See `Applicable.apply`."""
        if lengths is None:
            return self._function(q, k, v, *self._lengths)
        if not self._lengths:
            raise BadInput("a kernel of a case without lengths, or of fixed ones, takes none at its call")
        return self._function(q, k, v, lengths)

    def wait(self, result: Any) -> None:
        """See `Kernel.wait`: on a CPU torch has computed by the time it returns."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    def outputs(self, result: Any) -> dict[str, Array]:
        """See `Kernel.outputs`."""
        names = ("o", "dq", "dk", "dv")
        for tensor in result:
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"a torch tensor is wanted, and the kernel gave {type(tensor).__name__}")
        return {
            name: to_bhnd(to_numpy(tensor), self.layout) for name, tensor in zip(names, result, strict=False)
        }


def kernel(
    function: Callable[..., Any],
    case: Case,
    *,
    layout: str = "bhnd",
    untimed: str | None = None,
    config: Mapping[str, Any] | None = None,
    lengths_at_call: bool = False,
) -> Kernel:
    """See `Framework.kernel`. With `lengths_at_call` the function of a case with lengths is called as
    ``function(q, k, v, lengths)``, [batch] int32 on the device: the case's, or those that a model gives."""
    return TorchKernel(function, case, layout, untimed, dict(config or {}), lengths_at_call)


def start(device: str, threads: int) -> None:
    """float32 means float32, and half dtypes accumulate in it: no TF32, and no matrix product that adds up
    its parts in half precision, which torch allows by default."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def device_problem(device: str) -> str | None:
    """See `Framework.device_problem`."""
    if device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        return (
            f"torch {torch.__version__} finds no CUDA GPU"
            if built
            else f"torch {torch.__version__} is built without CUDA"
        )
    return None


def environment(device: str) -> dict[str, Any]:
    """See `Framework.environment`."""
    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "intra_op_threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


@functools.cache
def _cache_flusher() -> torch.Tensor:
    bytes_ = max(256 << 20, 4 * int(torch.cuda.get_device_properties(0).L2_cache_size))
    return torch.ones(bytes_ // 4, dtype=torch.float32, device="cuda")


def flush_cache(device: str) -> None:
    """See `Framework.flush_cache`. Reading leaves no dirty lines whose write-back the call would pay."""
    if device == "cuda":
        _cache_flusher().amax()
        torch.cuda.synchronize()


def peak_memory(kernel: Kernel, device: str) -> PeakMemory:
    """See `Framework.peak_memory`."""
    if device != "cuda":
        return host_peak(kernel)
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel.wait(kernel())
    return PeakMemory(bytes=torch.cuda.max_memory_allocated() - before, method=CUDA_PEAK)


class RunningPeak:
    """The most memory in use since the creation, beyond what was in use then: of a process that goes on, as
    one that trains, where `peak_memory` is that of one call."""

    METHOD = "torch.cuda.max_memory_allocated since the model was made, less what was allocated before"

    def __init__(self, device: str) -> None:
        self._host = None if device == "cuda" else ResidentPeak()
        self._before = 0
        if self._host is None:
            self._before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> PeakMemory:
        """So far. Waits for nothing."""
        if self._host is not None:
            return self._host.read()
        return PeakMemory(bytes=torch.cuda.max_memory_allocated() - self._before, method=self.METHOD)


def static_memory(kernel: Kernel) -> int | None:
    """See `Framework.static_memory`."""
    return None


def compilations() -> Mapping[str, int]:
    """See `Framework.compilations`: torch.compile's graphs, by Inductor's own count. Triton kernels outside
    of them are not counted."""
    if "torch._dynamo" not in sys.modules:
        return {}
    counted = sys.modules["torch._dynamo"].utils.counters["inductor"]
    return {"anew": counted["fxgraph_cache_miss"], "from_cache": counted["fxgraph_cache_hit"]}


def is_out_of_memory(error: BaseException) -> bool:
    """See `Framework.is_out_of_memory`. The CPU allocator raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def release() -> None:
    """See `Framework.release`. The compiler is imported by its reset, which takes seconds."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
