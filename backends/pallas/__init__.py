"""Pallas kernels, lowered through Pallas's Triton route: flash-style softmax, and linear and momentum
attention with map, weights and normaliser fused into the chunked form. Importing it imports no JAX.
"""

from __future__ import annotations

from mtbench.backend import (
    GROUPED_HEADS,
    KV_LEN,
    LENGTHS,
    NAN_IN_V,
    Caveat,
    DeclaredBackend,
    Kernel,
    Requirement,
    dims_up_to,
)
from mtbench.spec import Case

from .tiles import MAX_DIM

__all__ = ["BACKEND", "PallasBackend"]


class PallasBackend(DeclaredBackend):
    """The Pallas kernels of this folder, each one form: ``fused``.

    On a CPU Pallas interprets them: right numbers, and times that mean nothing. JAX 0.11 deprecates the
    Triton route, on which all of them are built, in favour of Mosaic's.
    """

    def build(self, case: Case, form: str) -> Kernel:
        """Settles the plan and compiles every kernel of the case."""
        from mtbench.frameworks import load_framework

        from .attention import attention_of
        from .plan import make_plan, processors

        plan = make_plan(case, processors(case.device))
        return load_framework(self.framework).kernel(
            attention_of(plan),
            case,
            untimed="interpreted" if case.device in self.interpreted_on else None,
            config=plan.config,
        )


BACKEND = PallasBackend(
    name="jax-pallas",
    framework="jax",
    form_table={"softmax": ("fused",), "linear": ("fused",), "momentum": ("fused",)},
    interpreted_on=("cpu",),
    requires=(Requirement(distribution="jax", minimum="0.10"),),
    limits=(
        GROUPED_HEADS,
        KV_LEN,
        LENGTHS,
        *dims_up_to(MAX_DIM),
    ),
    caveats=(
        Caveat(
            what=NAN_IN_V,
            reason="causal: a dot multiplies it by a weight of 0, for the rows of its chunk or block",
            applies=lambda case, form: case.spec.causal,
        ),
    ),
)
