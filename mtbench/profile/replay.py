"""One call of one case between the driver's marks for a profiler, for tools that start a process themselves.

Run as ``python -P -m mtbench.profile.replay BACKEND FORM THREADS CASE [PROTON-FILE]``, the case as JSON. With
a file the calls are recorded by proton, Triton's own profiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Iterator

from mtbench.frameworks import load_framework
from mtbench.inputs import make_inputs
from mtbench.registry import load_backend
from mtbench.spec import Case

__all__ = ["main"]

WARM = 3


def main(name: str, form: str, threads: int, case: Case, proton: str | None) -> None:
    """Build, warm up, mark, call."""
    backend = load_backend(name)
    framework = load_framework(backend.framework)
    framework.start(case.device, threads)
    kernel = backend.build(case, form)
    kernel.load(make_inputs(case))
    for _ in range(WARM):
        kernel.wait(kernel())
    if proton is not None:
        from mtbench.frameworks.torch_profiler import proton_record

        proton_record(kernel, proton)
        return
    with _marked(case.device):
        kernel.wait(kernel())


@contextlib.contextmanager
def _marked(device: str) -> Iterator[None]:
    """The driver's marks around what is inside, on a GPU. They want a context, and JAX leaves none with the
    thread that called it: that of the device, which every framework works in, is made the thread's own."""
    if device != "cuda":
        yield
        return
    driver = ctypes.CDLL("libcuda.so.1")
    context = ctypes.c_void_p()

    def ask(status: int) -> None:
        if status:
            raise RuntimeError(f"the CUDA driver refused to mark a call for a profiler (error {status})")

    ask(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    ask(driver.cuCtxSetCurrent(context))
    ask(driver.cuProfilerStart())
    yield
    ask(driver.cuProfilerStop())


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]),
        Case.from_dict(json.loads(sys.argv[4])),
        sys.argv[5] if len(sys.argv) > 5 else None,
    )
