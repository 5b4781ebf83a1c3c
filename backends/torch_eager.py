"""Eager PyTorch: the baseline that everyone can read, and the one that does every case of the spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mtbench.backend import GROUPED_HEADS, DeclaredBackend, Kernel, Requirement
from mtbench.spec import Case

from .torch_forms.caveats import CAVEATS

__all__ = ["BACKEND"]


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@dataclass(frozen=True, kw_only=True)
class TorchEager(DeclaredBackend):
    """The forms of `torch_forms`, run operator by operator."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        from mtbench.frameworks.torch import kernel

        from .torch_forms.table import FORMS

        function = FORMS[case.spec.kind, form](case, _as_it_is)
        return kernel(function, case, lengths_at_call=True)


BACKEND = TorchEager(
    name="torch-eager",
    framework="torch",
    form_table={
        "softmax": ("parallel", "chunked", "sdpa"),
        "linear": ("parallel", "chunked", "recurrent"),
        "momentum": ("parallel", "chunked", "recurrent"),
    },
    lengths_at_call=True,
    requires=(Requirement(distribution="torch", minimum="2.10"),),
    limits=(GROUPED_HEADS,),
    caveats=CAVEATS,
)
