"""Triton kernels: flash-style softmax, and linear and momentum attention with map, weights and normaliser
fused into the chunked form. Importing it loads neither torch nor triton.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from mtbench.backend import (
    FORWARD_ONLY,
    GROUPED_HEADS,
    KV_LEN,
    LENGTHS,
    NAN_IN_V,
    Caveat,
    DeclaredBackend,
    Kernel,
    Limit,
    Requirement,
)
from mtbench.frameworks import load_framework
from mtbench.spec import Case

from .launch import compile_only, enter, start
from .tiles import MAX_DIM

__all__ = ["BACKEND", "TritonBackend"]


def kernels_of(case: Case) -> str:
    """The module whose `attention` computes a case."""
    if case.spec.kind == "softmax":
        return "softmax"
    return "scan" if case.spec.causal else "full"


NUMPY_2_4 = Requirement(distribution="numpy", minimum="2.4")
INTERPRETER_FOR_IT = Requirement(distribution="triton", minimum="3.7")


class TritonBackend(DeclaredBackend):
    """The Triton kernels of this folder, each one form: ``fused``.

    On a CPU Triton interprets them: right numbers, and times that mean nothing.
    """

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`. Triton's interpreter before 3.7 fails on NumPy 2.4: it makes an int of
        an array of one element."""
        reason = super().unavailable(device)
        if reason is None and device == "cpu" and NUMPY_2_4.missing() is None:
            reason = INTERPRETER_FOR_IT.missing()
            return reason and f"{reason}, before which NumPy 2.4 breaks its interpreter"
        return reason

    def build(self, case: Case, form: str) -> Kernel:
        """Settles the plan, and on a card compiles every kernel of the case.

        Raises:
            BackendFailure: this process runs Triton kernels the other way (card or interpreter) already.
        """
        enter(case.device)
        plans = importlib.import_module(f"{__name__}.plan")
        attention = importlib.import_module(f"{__name__}.{kernels_of(case)}").attention
        if case.device == "cpu":
            plan = plans.make_plan(case, "cpu")
        else:
            import torch

            plan = plans.make_plan(
                case, "cuda", torch.cuda.get_device_properties("cuda").multi_processor_count
            )
            attention(plan, compile_only, *shapes_of(case))
        return load_framework(self.framework).kernel(
            functools.partial(attention, plan, start),
            case,
            untimed="interpreted" if case.device == "cpu" else None,
            config=plan.config,
        )


def shapes_of(case: Case) -> tuple[Any, ...]:
    """q, k and v without data."""
    import torch

    lead = (case.batch, case.heads, case.seq_len)
    dims = (case.head_dim, case.head_dim, case.value_dim)
    return tuple(torch.empty((*lead, dim), dtype=getattr(torch, case.dtype), device="meta") for dim in dims)


BACKEND = TritonBackend(
    name="triton",
    framework="torch",
    form_table={"softmax": ("fused",), "linear": ("fused",), "momentum": ("fused",)},
    requires=(
        Requirement(distribution="torch", minimum="2.10"),
        Requirement(distribution="triton", minimum="3.5"),
    ),
    limits=(
        GROUPED_HEADS,
        KV_LEN,
        LENGTHS,
        FORWARD_ONLY,
        Limit(
            kind="notimpl",
            what=f"head_dim above {MAX_DIM}",
            reason="a program holds whole rows of q and k, which would have to be split",
            applies=lambda case, form: case.head_dim > MAX_DIM,
        ),
        Limit(
            kind="notimpl",
            what=f"value_dim above {MAX_DIM}",
            reason="no tile sizes were chosen for it",
            applies=lambda case, form: case.value_dim > MAX_DIM,
        ),
        Limit(
            kind="notyet",
            what="bfloat16 on device cpu",
            reason="Triton's interpreter takes the bits of a bfloat16 tl.dot for integers (3.5 to 3.9)",
            applies=lambda case, form: case.device == "cpu" and case.dtype == "bfloat16",
        ),
    ),
    caveats=(
        Caveat(
            what=NAN_IN_V,
            reason="causal: a dot multiplies it by a weight of 0, for the rows of its chunk or block",
            applies=lambda case, form: case.spec.causal,
        ),
    ),
)
