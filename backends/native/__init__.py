"""C++ for the CPU: linear and momentum attention, compiled at first use by the machine's own compiler.

It needs a C++17 compiler and nothing else. `attention.cpp` has the mathematics and the tiling, `compiler`
builds it and keeps what it built, `call` gives it a case.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.backend import ALIKE, FORWARD_ONLY, DeclaredBackend, Kernel, Limit
from mtbench.frameworks import load_framework
from mtbench.spec import Case

__all__ = ["BACKEND"]


@dataclass(frozen=True, kw_only=True)
class Native(DeclaredBackend):
    """`attention.cpp` through NumPy arrays."""

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`. It looks for a compiler, and does not run it."""
        from .compiler import missing

        return super().unavailable(device) or missing()

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`. The first on a machine compiles, for some seconds.

        Raises:
            BackendFailure: there is no compiler, or it fails.
        """
        from .call import Attention

        attention = Attention(case)
        return load_framework(self.framework).kernel(attention, case, config=attention.config)


BACKEND = Native(
    name="native",
    framework="numpy",
    form_table={"linear": ("chunked",), "momentum": ("chunked",)},
    devices=("cpu",),
    limits=(
        Limit(
            kind="notimpl",
            what="bfloat16 and float16",
            reason="its tiles are of float32, and nothing widens the others as they are loaded",
            applies=lambda case, form: case.dtype != "float32",
        ),
        *ALIKE,
        FORWARD_ONLY,
    ),
)
