"""The flash-attn package's own kernel, where it is installed: it is built from source against one torch."""

from __future__ import annotations

from typing import Any

from mtbench.backend import GROUPED_HEADS, LENGTHS, DeclaredBackend, Kernel, Limit, Requirement
from mtbench.frameworks import load_framework
from mtbench.spec import Case

__all__ = ["BACKEND"]


class FlashAttn(DeclaredBackend):
    """``flash_attn.flash_attn_func``, on [batch, positions, heads, dim] tensors."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        from flash_attn import flash_attn_func

        causal, scale = case.spec.causal, case.softmax_scale

        def attend(q: Any, k: Any, v: Any) -> Any:
            return flash_attn_func(q, k, v, softmax_scale=scale, causal=causal)

        return load_framework("torch").kernel(attend, case, layout="bnhd")


BACKEND = FlashAttn(
    name="flash-attn",
    framework="torch",
    form_table={"softmax": ("flash-2",)},
    devices=("cuda",),
    requires=(
        Requirement(distribution="torch", minimum="2.10"),
        Requirement(distribution="flash-attn", minimum="2.6"),
    ),
    limits=(
        GROUPED_HEADS,
        LENGTHS,
        Limit(
            kind="notyet",
            what="float32",
            reason="it takes half precision only",
            applies=lambda case, form: case.dtype == "float32",
        ),
        Limit(
            kind="notyet",
            what="value_dim other than head_dim, or head_dim above 256",
            reason="it has one dim for all three, of at most 256",
            applies=lambda case, form: case.value_dim != case.head_dim or case.head_dim > 256,
        ),
    ),
)
