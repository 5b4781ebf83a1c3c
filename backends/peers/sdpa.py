"""PyTorch's scaled_dot_product_attention with its kernel chosen by name, where `torch-eager`'s form ``sdpa``
lets PyTorch choose."""

from __future__ import annotations

from typing import Any

from mtbench.backend import GROUPED_HEADS, DeclaredBackend, Kernel, Limit, Requirement
from mtbench.frameworks import load_framework
from mtbench.spec import Case

__all__ = ["BACKEND"]

KERNELS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
"""A form, and the member of torch.nn.attention.SDPBackend it is."""

ALIGNED = {"float32": 4, "bfloat16": 8, "float16": 8}
"""Elements in the 16 bytes that a memory-efficient kernel loads at once."""


class Sdpa(DeclaredBackend):
    """One kernel a form; PyTorch raises where that kernel cannot, and falls back to no other."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        chosen = getattr(SDPBackend, KERNELS[form])
        causal, scale = case.spec.causal, case.softmax_scale

        def attend(q: Any, k: Any, v: Any) -> Any:
            with sdpa_kernel(chosen):
                return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

        return load_framework("torch").kernel(attend, case)


BACKEND = Sdpa(
    name="sdpa",
    framework="torch",
    form_table={"softmax": tuple(KERNELS)},
    requires=(Requirement(distribution="torch", minimum="2.10"),),
    limits=(
        GROUPED_HEADS,
        Limit(
            kind="notimpl",
            what="lengths (padding)",
            reason="flash and cudnn take no mask; torch-eager's form sdpa has one",
            applies=lambda case, form: case.lengths is not None,
        ),
        Limit(
            kind="never",
            what="efficient and cudnn on a CPU",
            reason="they are kernels for NVIDIA GPUs",
            applies=lambda case, form: form != "flash" and case.device == "cpu",
        ),
        Limit(
            kind="notyet",
            what="flash and cudnn in float32 on a GPU",
            reason="they take half precision only",
            applies=lambda case, form: (
                form != "efficient" and case.dtype == "float32" and case.device == "cuda"
            ),
        ),
        Limit(
            kind="notyet",
            what="flash with value_dim other than head_dim",
            reason="PyTorch's flash kernels have one dim for all three",
            applies=lambda case, form: form == "flash" and case.value_dim != case.head_dim,
        ),
        Limit(
            kind="notyet",
            what="flash with head_dim above 256 on a GPU",
            reason="it has no such kernel",
            applies=lambda case, form: form == "flash" and case.head_dim > 256 and case.device == "cuda",
        ),
        Limit(
            kind="notyet",
            what="efficient with rows that are not whole multiples of 16 bytes",
            reason="it loads 16 bytes at once, and PyTorch refuses other head_dim and value_dim",
            applies=lambda case, form: (
                form == "efficient"
                and (case.head_dim % ALIGNED[case.dtype] > 0 or case.value_dim % ALIGNED[case.dtype] > 0)
            ),
        ),
        Limit(
            kind="notyet",
            what="cudnn with head_dim or value_dim above 128, or not a multiple of 8",
            reason="cuDNN has no such kernel",
            applies=lambda case, form: (
                form == "cudnn"
                and (max(case.head_dim, case.value_dim) > 128 or (case.head_dim | case.value_dim) % 8 > 0)
            ),
        ),
        Limit(
            kind="notyet",
            what="cudnn with seq_len 1",
            reason="PyTorch refuses it",
            applies=lambda case, form: form == "cudnn" and case.seq_len == 1,
        ),
    ),
)
