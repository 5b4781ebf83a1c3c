"""A sequence over several devices, by torch.distributed: linear and momentum attention exchange their states,
softmax its keys and values. Importing it does not import torch.
"""

from __future__ import annotations

from typing import Any

from mtbench.backend import (
    ALIKE,
    NAN_IN_V,
    SCORES_ROUNDED,
    Caveat,
    DeclaredBackend,
    Kernel,
    Limit,
    Requirement,
    dims_up_to,
)
from mtbench.spec import ATTENTIONS, Case

__all__ = ["BACKEND", "TorchDistributed"]

FORMS = ("fused", "chunked")
CHUNK = 128
"""Positions of which a rank has a whole number, but for the last rank, where the local part is Triton's."""


class TorchDistributed(DeclaredBackend):
    """What each rank computes itself is in its form's name: ``fused`` is the Triton kernels, ``chunked`` the
    chunked form of PyTorch. On one device either is that alone, with nothing around it."""

    def build(self, case: Case, form: str) -> Kernel:
        """The kernel of all ranks, whose processes it starts where they are not there yet.

        Raises:
            Ended: this machine has too few devices (``unavailable``), or a rank ended.
        """
        import torch

        from mtbench.ranks.group import SpreadKernel, check_devices, group_of, leave

        if case.world_size == 1:
            leave()  # several would hold their last case's memory beside it
            return self._alone(case, form)
        check_devices(case, torch.cuda.device_count())
        group = group_of(self.name, case.device, case.world_size, torch.get_num_threads())
        return SpreadKernel(group, case, form)

    def _alone(self, case: Case, form: str) -> Kernel:
        if form == "fused":
            from ..triton import BACKEND as TRITON

            return TRITON.build(case, form)
        from mtbench.frameworks import load_framework

        from ..torch_forms.table import FORMS as PLAIN

        function = PLAIN[case.spec.kind, form](case, lambda whole: whole)
        return load_framework("torch").kernel(function, case)

    def join(self, device: str, rank: int, ranks: int, rendezvous: str) -> None:
        """See `mtbench.ranks.member.SpreadBackend`."""
        from .member import join

        join(device, rank, ranks, rendezvous)

    def member(self, case: Case, form: str) -> Any:
        """See `mtbench.ranks.member.SpreadBackend`."""
        from .member import TorchMember

        return TorchMember(case, form)


BACKEND = TorchDistributed(
    name="torch-distributed",
    framework="torch",
    form_table=dict.fromkeys(ATTENTIONS, FORMS),
    spreads=True,
    requires=(Requirement(distribution="torch", minimum="2.10"),),
    limits=(
        *ALIKE,
        Limit(
            kind="never",
            what="fused on a CPU",
            reason="Triton interprets its kernels there, and a time of that means nothing: chunked is for it",
            applies=lambda case, form: form == "fused" and case.device == "cpu",
        ),
        Limit(
            kind="notimpl",
            what=f"fused linear and momentum of fewer than {CHUNK} positions a device",
            reason="what comes back from behind meets the Triton kernels at the end of a whole chunk",
            applies=lambda case, form: (
                form == "fused"
                and case.spec.kind != "softmax"
                and case.world_size > 1
                and -(-case.seq_len // CHUNK) < case.world_size
            ),
        ),
        *(limit for limit in dims_up_to(256)),
    ),
    caveats=(
        Caveat(
            what=NAN_IN_V,
            reason="causal: a product multiplies it by a weight of 0, for the rows of its chunk or block",
            applies=lambda case, form: case.spec.causal,
        ),
        Caveat(
            what=SCORES_ROUNDED,
            reason=(
                "softmax, chunked: PyTorch's matrix product returns q k^T in the operands' dtype, which is "
                "off by 1 at 400 in bfloat16 and overflows at 65,504 in float16"
            ),
            applies=lambda case, form: (
                case.spec.kind == "softmax" and form == "chunked" and case.dtype != "float32"
            ),
        ),
    ),
)
