"""torch's profiler, its allocator's history, and what its operators say they need."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mtbench.backend import Kernel
from mtbench.frameworks.profiling import CALL, bracketed
from mtbench.frameworks.torch import compilations

HOST = re.compile(rb'"host_name": "[^"]*"')
"""kineto writes down what the machine is called, which is nobody's business."""
ALLOCATING = ("aten::empty", "aten::new_empty")
HISTORY = 200_000
"""Allocations that are kept, far more than a call makes."""


def _activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]


def trace(kernel: Kernel, device: str, calls: int, flush: Callable[[], None], file: Path) -> None:
    """See `Profiler.trace`. The first session pays for setting kineto up, and is thrown away."""
    with profile(activities=_activities(device)):
        kernel.wait(kernel())
    with profile(activities=_activities(device), record_shapes=True) as session:
        for _ in bracketed(kernel, calls, flush, record_function):
            pass
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "trace.json"
        session.export_chrome_trace(str(written))
        text = HOST.sub(rb'"host_name": ""', written.read_bytes(), count=1)
        file.write_bytes(gzip.compress(text, 6, mtime=0))


def memory(kernel: Kernel, device: str, folder: Path) -> Mapping[str, Any] | None:
    """See `Profiler.memory`."""
    return _history(kernel, folder) if device == "cuda" else _instants(kernel)


def _history(kernel: Kernel, folder: Path) -> Mapping[str, Any]:
    """The caching allocator's own record. Its snapshot opens at pytorch.org/memory_viz, offline too."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.memory._record_memory_history(max_entries=HISTORY, stacks="python")
    try:
        kernel.wait(kernel())
        snapshot = torch.cuda.memory._snapshot()
        torch.cuda.memory._dump_snapshot(str(folder / "memory-snapshot.pickle"))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    return {"history": snapshot["device_traces"][0]}


def _instants(kernel: Kernel) -> Mapping[str, Any]:
    """The profiler's record of the CPU allocator, with the operators and the Python functions around it."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True, with_stack=True
    ) as session:
        for _ in bracketed(kernel, 1, lambda: None, record_function):
            pass
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "trace.json"
        session.export_chrome_trace(str(written))
        events = json.loads(written.read_bytes())["traceEvents"]
    kept = ("[memory]", CALL)
    return {
        "events": [
            event
            for event in events
            if event.get("name") in kept or event.get("cat") in ("cpu_op", "python_function")
        ]
    }


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name.startswith(ALLOCATING):
            return result  # nothing is written yet
        before = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if _is_tensor(leaf)]
        after = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if _is_tensor(leaf)]
        held = {leaf.untyped_storage().data_ptr() for leaf in before}
        written = [leaf for leaf in after if leaf.untyped_storage().data_ptr() not in held]
        in_place = func._schema.is_mutable
        if written or in_place:
            self.bytes += sum(_moved(leaf) for leaf in (*before, *(after if in_place else written)))
        return result


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)


def _moved(tensor: torch.Tensor) -> int:
    """What a tensor lies in: of one that was expanded, each element once."""
    return min(tensor.numel() * tensor.element_size(), int(tensor.untyped_storage().nbytes()))


def work(kernel: Kernel) -> Mapping[str, float]:
    """See `Profiler.work`: of eager operators. Inside a compiled function nothing can count them, and torch
    refuses to run one where something tries. Of torch's attention operators it counts the bytes alone: its
    formula has the whole square of queries and keys, and their kernels skip what a mask hides."""
    if any(compilations().values()):
        return {}
    attention = {op: _uncounted for op in flop_registry if "attention" in str(op)}
    traffic, products = _Traffic(), FlopCounterMode(display=False, custom_mapping=attention)
    with traffic, products:
        kernel.wait(kernel())
    return {"flop": float(products.get_total_flops()), "bytes": float(traffic.bytes)}


def _uncounted(*args: object, **kwargs: object) -> int:
    return 0


def programs(kernel: Kernel) -> Mapping[str, str]:
    """See `Profiler.programs`. What Inductor and Triton make lies in their caches, as files."""
    return {}


def proton_record(kernel: Kernel, file: str) -> None:
    """Ten calls by Triton's own profiler, kernels under the Python functions that launched them, into
    ``file.hatchet``. It wants a process in which torch's profiler has not run: CUPTI takes one subscriber."""
    import triton.profiler as proton

    proton.start(file, context="python", data="tree", hook="triton")
    for _ in range(10):
        kernel.wait(kernel())
    proton.finalize()
