"""JAX: the attentions as XLA compiles them, and jax.nn's two softmax kernels. Importing it imports no JAX."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from mtbench.backend import (
    ALIKE,
    NAN_IN_K,
    NAN_IN_V,
    AttentionFunction,
    Caveat,
    DeclaredBackend,
    Kernel,
    Limit,
    Requirement,
)
from mtbench.spec import Case

__all__ = ["BACKEND", "CAVEATS", "JaxBackend", "Plan", "plan_of"]

JAX_NN = ("xla", "cudnn")
"""The forms that are jax.nn.dot_product_attention, which has limits of its own."""

LIMITS = (
    *ALIKE,
    Limit(
        kind="notyet",
        what="xla and cudnn with value_dim other than head_dim",
        reason="jax.nn.dot_product_attention wants value in the shape of key",
        applies=lambda case, form: form in JAX_NN and case.value_dim != case.head_dim,
    ),
    Limit(
        kind="notyet",
        what="xla in float16 on a CPU",
        reason="it asks for the dot algorithm F16_F16_F32, which XLA does not have there",
        applies=lambda case, form: form == "xla" and case.dtype == "float16" and case.device == "cpu",
    ),
    Limit(
        kind="never",
        what="cudnn on a CPU",
        reason="cuDNN is a library for NVIDIA GPUs",
        applies=lambda case, form: form == "cudnn" and case.device != "cuda",
    ),
    Limit(
        kind="notyet",
        what="cudnn in float32",
        reason="JAX hands cuDNN float16, bfloat16 and float8 only",
        applies=lambda case, form: form == "cudnn" and case.dtype == "float32",
    ),
    Limit(
        kind="notyet",
        what="cudnn with head_dim not a multiple of 8",
        reason="cuDNN has no such kernel, and JAX refuses it",
        applies=lambda case, form: form == "cudnn" and case.head_dim % 8 > 0,
    ),
    Limit(
        kind="notimpl",
        what="cudnn with head_dim above 128",
        reason="JAX takes up to 256 from compute capability 9.0 on, which a declaration does not see",
        applies=lambda case, form: form == "cudnn" and case.head_dim > 128,
    ),
    Limit(
        kind="notyet",
        what="cudnn with seq_len 1",
        reason="cuDNN takes one query for decoding, which up to version 9.9 it refuses with a causal mask",
        applies=lambda case, form: form == "cudnn" and case.seq_len == 1,
    ),
    Limit(
        kind="notyet",
        what="cudnn backward with an odd seq_len",
        reason="JAX refuses it as it would with a bias, though there is none (0.8 to 0.11)",
        applies=lambda case, form: (
            form == "cudnn" and case.mode == "forward_backward" and case.seq_len % 2 == 1
        ),
    ),
)

CAVEATS = (
    Caveat(
        what=NAN_IN_V,
        reason=(
            "causal, but for the recurrent form: a matrix product multiplies it by a weight of 0, for the "
            "rows of its chunk or block and in the other forms for all"
        ),
        applies=lambda case, form: case.spec.causal and form != "recurrent",
    ),
    Caveat(
        what=NAN_IN_K,
        reason=(
            "chunked, causal, on a GPU, linear and momentum: chunks of 128 positions make each other's "
            "states in one matrix product, with weights of 0 for the later ones; in bfloat16 so do the "
            "positions of a chunk"
        ),
        applies=lambda case, form: (
            case.spec.kind != "softmax"
            and form == "chunked"
            and case.device == "cuda"
            and case.spec.causal
            and case.seq_len > (1 if case.dtype == "bfloat16" else 128) * case.world_size
        ),
    ),
)
"""Of the chunked form between devices, too."""


class JaxBackend(DeclaredBackend):
    """The functions of this package, compiled ahead of time and differentiated by JAX."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        from mtbench.frameworks.jax import kernel

        plan = plan_of(case, form)

        def call(q: Any, k: Any, v: Any) -> Any:
            return plan.function(q, k, v, case)

        return kernel(call, case, layout=plan.layout, config=plan.config, options=plan.options)


class Plan(NamedTuple):
    """What is compiled for a case in a form."""

    function: AttentionFunction
    layout: str = "bhnd"
    config: Mapping[str, Any] = {}
    """What it chose for this case: it stands in the row."""
    options: Mapping[str, bool | str] = {}
    """XLA's, for this program alone."""


def plan_of(case: Case, form: str) -> Plan:
    """The function of a form, the layout of its arrays, what it chose and what it is compiled with."""
    if case.spec.kind == "softmax":
        from . import softmax

        if form in JAX_NN:
            return Plan(getattr(softmax, form), "bnhd")
        if form == "chunked":
            return Plan(softmax.chunked, config={"block": softmax.block_size(case)})
        return Plan(softmax.parallel)
    if form == "chunked":
        return _chunked(case)
    from . import linear

    return Plan(getattr(linear, form))


def _chunked(case: Case) -> Plan:
    """Linear and momentum attention in chunks, in the schedule for a program that has options of its own."""
    from . import chunked, schedules

    lacking = schedules.MERGING.missing()
    best = schedules.schedule(case, merging=True)
    chosen = schedules.schedule(case) if lacking else best
    options = schedules.compiler_options(chosen, case.device)
    config: dict[str, Any] = chosen._asdict()
    if options:
        config["compiler_options"] = options
    if chosen != best:
        config["states_apart_because"] = lacking
    return Plan(functools.partial(chunked.chunked, chosen=chosen), config=config, options=options)


_FORMS = ("parallel", "chunked", "recurrent")

BACKEND = JaxBackend(
    name="jax",
    framework="jax",
    form_table={
        "softmax": ("parallel", "chunked", *JAX_NN),
        "linear": _FORMS,
        "momentum": _FORMS,
    },
    requires=(Requirement(distribution="jax", minimum="0.8"),),
    limits=LIMITS,
    caveats=CAVEATS,
)
