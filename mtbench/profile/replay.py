"""One call of one case between the driver's marks for a profiler, for tools that start a process themselves.

Run as ``python -P -m mtbench.profile.replay BACKEND FORM THREADS CASE [PROTON-FILE]``, the case as JSON. With
a file the calls are recorded by proton, Triton's own profiler.
"""

from __future__ import annotations

import ctypes
import json
import sys

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
    driver = ctypes.CDLL("libcuda.so.1") if case.device == "cuda" else None
    if driver is not None:
        driver.cuProfilerStart()
    kernel.wait(kernel())
    if driver is not None:
        driver.cuProfilerStop()


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]),
        Case.from_dict(json.loads(sys.argv[4])),
        sys.argv[5] if len(sys.argv) > 5 else None,
    )
