"""Triton kernels: flash-style softmax, and linear and momentum attention with map, weights and normaliser
fused into the chunked form, of short sequences into the parallel one. Importing it loads neither torch nor
triton.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from mtbench.backend import (
    GROUPED_HEADS,
    NAN_IN_V,
    TF32,
    Caveat,
    DeclaredBackend,
    Decoder,
    Kernel,
    Limit,
    Requirement,
    dims_up_to,
)
from mtbench.spec import ATTENTIONS, Case

from .launch import Launch, compile_only, enter, start
from .tiles import MAX_DIM

__all__ = ["BACKEND", "TritonBackend"]


def kernels_of(plan: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What computes a plan's case and its gradients."""
    spec = plan.case.spec
    if spec.kind == "softmax":
        forward, backward = "softmax", "softmax_gradients"
    elif plan.parallel:
        forward, backward = "parallel", "parallel_gradients"
    else:
        forward, backward = "scan" if spec.causal else "full", "gradients"
    return (
        importlib.import_module(f"{__name__}.{forward}").attention,
        importlib.import_module(f"{__name__}.{backward}").gradients,
    )


def compile_all(plan: Any, launch: Launch) -> None:
    """Hands `launch` every kernel of a call of the plan's case, on tensors without data."""
    import torch

    attention, gradients = kernels_of(plan)
    q, k, v = shapes_of(plan.case)
    backward = plan.case.mode == "forward_backward"
    o, kept = attention(plan, launch, q, k, v, keep=backward)
    if backward:
        gradients(plan, launch, q, k, v, o, torch.empty_like(o), *kept)


NUMPY_2_4 = Requirement(distribution="numpy", minimum="2.4")
INTERPRETER_FOR_IT = Requirement(distribution="triton", minimum="3.7")


FORMS = ("fused", f"fused{TF32}")


class TritonBackend(DeclaredBackend):
    """The Triton kernels of this folder in one form, ``fused``, and in ``fused-tf32``, in which tensor cores
    multiply float32.

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
        from mtbench.frameworks.torch import kernel

        enter(case.device)
        plans = importlib.import_module(f"{__name__}.plan")
        tf32 = form.endswith(TF32)
        if case.device == "cpu":
            plan = plans.make_plan(case, "cpu", tf32=tf32)
        else:
            import torch

            processors = torch.cuda.get_device_properties("cuda").multi_processor_count
            plan = plans.make_plan(case, "cuda", processors, tf32=tf32)
            compile_all(plan, compile_only)
        attention, gradients = kernels_of(plan)
        if case.mode == "forward":
            function = functools.partial(output, attention, plan)
        else:
            module = importlib.import_module(f"{__name__}.differentiable")
            function = module.differentiable(attention, gradients, plan, start)
        return kernel(
            function,
            case,
            lengths_at_call=True,
            untimed="interpreted" if case.device in self.interpreted_on else None,
            config=plan.config,
        )

    def decoder(self, case: Case) -> Decoder:
        """See `mtbench.backend.Decodes`.

        Raises:
            BackendFailure: as `build`.
        """
        enter(case.device)
        made: Decoder = importlib.import_module(f"{__name__}.decoder").decoder(case)
        return made


def output(attention: Callable[..., Any], plan: Any, q: Any, k: Any, v: Any, lengths: Any = None) -> Any:
    """The output alone, of a `kernels_of` function and a plan."""
    return attention(plan.of(lengths), start, q.contiguous(), k.contiguous(), v.contiguous())[0]


def shapes_of(case: Case) -> tuple[Any, ...]:
    """q, k and v without data."""
    import torch

    lead = (case.batch, case.heads)
    sizes = ((case.seq_len, case.head_dim), (case.kv_len, case.head_dim), (case.kv_len, case.value_dim))
    return tuple(
        torch.empty((*lead, *size), dtype=getattr(torch, case.dtype), device="meta") for size in sizes
    )


BACKEND = TritonBackend(
    name="triton",
    framework="torch",
    form_table=dict.fromkeys(ATTENTIONS, FORMS),
    lengths_at_call=True,
    interpreted_on=("cpu",),
    requires=(
        Requirement(distribution="torch", minimum="2.10"),
        Requirement(distribution="triton", minimum="3.5"),
    ),
    limits=(
        GROUPED_HEADS,
        Limit(
            kind="never",
            what="fused-tf32 in a half dtype",
            reason="TF32 is a way to multiply float32",
            applies=lambda case, form: form.endswith(TF32) and case.dtype != "float32",
        ),
        Limit(
            kind="never",
            what="fused-tf32 on a CPU",
            reason="Triton's interpreter has no tensor cores: it would be fused again, with rounded operands",
            applies=lambda case, form: form.endswith(TF32) and case.device == "cpu",
        ),
        *dims_up_to(MAX_DIM),
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
