"""A backend that takes longer: one of mtbench's own, which busy-waits for a part of each call's own time.

``MTBENCH_SLOWED=torch-eager MTBENCH_SLOWED_PERCENT=10 mtbench run --backend scripts/slowed.py,jax`` measures
a real slow-down under the backend's own name, for `comparison_power.py --slowed`. On a CPU, by the wall
clock: the wait is the host's, so a device clock would not see it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from mtbench.backend import Kernel, Unsupported
from mtbench.inputs import Array, Inputs
from mtbench.registry import load_backend
from mtbench.spec import Case

__all__ = ["BACKEND"]

INNER = load_backend(os.environ.get("MTBENCH_SLOWED", "torch-eager"))
PART = float(os.environ.get("MTBENCH_SLOWED_PERCENT", "10")) / 100


class SlowedKernel:
    """A kernel, and then a wait for `PART` of the time it took."""

    def __init__(self, inner: Kernel) -> None:
        self._inner = inner
        self.layout = inner.layout
        self.untimed = inner.untimed

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        self._inner.load(inputs)

    def __call__(self) -> Any:
        """The call, waited for, and the wait."""
        began = time.perf_counter()
        result = self._inner()
        self._inner.wait(result)
        end = time.perf_counter()
        end += PART * (end - began)
        while time.perf_counter() < end:
            pass
        return result

    def wait(self, result: Any) -> None:
        """See `Kernel.wait`."""
        self._inner.wait(result)

    def outputs(self, result: Any) -> Mapping[str, Array]:
        """See `Kernel.outputs`."""
        return self._inner.outputs(result)

    @property
    def config(self) -> Mapping[str, Any]:
        """See `Kernel.config`."""
        return {**self._inner.config, "slowed": PART}


class SlowedBackend:
    """`INNER` in everything but its speed."""

    name = INNER.name
    framework = INNER.framework
    limits = INNER.limits

    def forms(self, kind: str) -> tuple[str, ...]:
        """See `Backend.forms`."""
        return INNER.forms(kind)

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`."""
        return INNER.unavailable(device)

    def unsupported(self, case: Case, form: str) -> Unsupported | None:
        """See `Backend.unsupported`."""
        return INNER.unsupported(case, form)

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        return SlowedKernel(INNER.build(case, form))


BACKEND = SlowedBackend()
