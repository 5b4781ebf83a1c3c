"""The forms of eager PyTorch through torch.compile, with static shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mtbench.backend import (
    GROUPED_HEADS,
    NAN_LOST,
    Caveat,
    DeclaredBackend,
    Kernel,
    Limit,
    Requirement,
)
from mtbench.spec import Case

from .torch_forms.caveats import CAVEATS

__all__ = ["BACKEND"]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    # Past a limit of recompilations torch would run the function eagerly and say nothing: make it an error. A
    # block has up to 16 versions: with a ragged tail or not, on the diagonal or not, with gradients or not.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    return torch.compile(function, dynamic=False, fullgraph=True)


@dataclass(frozen=True, kw_only=True)
class TorchCompile(DeclaredBackend):
    """The whole function compiled, for the parallel forms; for the others the piece that is repeated (a
    chunk, a block, a position), so that compiling takes no longer for a longer sequence."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`. The compiler runs at the first call."""
        from mtbench.frameworks.torch import kernel

        from .torch_forms.table import FORMS

        function = FORMS[case.spec.kind, form](case, _compiled)
        return kernel(function, case, lengths_at_call=True)


BACKEND = TorchCompile(
    name="torch-compile",
    framework="torch",
    form_table={
        "softmax": ("parallel", "chunked", "sdpa", "flex"),
        "linear": ("parallel", "chunked", "recurrent"),
        "momentum": ("parallel", "chunked", "recurrent"),
    },
    lengths_at_call=True,
    requires=(Requirement(distribution="torch", minimum="2.10"),),
    limits=(
        GROUPED_HEADS,
        Limit(
            kind="notimpl",
            what="flex with lengths (padding), or with kv_len other than seq_len",
            reason="its block mask would have to be made anew of every batch's lengths",
            applies=lambda case, form: (
                form == "flex" and (case.lengths is not None or case.kv_len != case.seq_len)
            ),
        ),
        Limit(
            kind="notyet",
            what="flex in mode forward_backward on a CPU",
            reason="FlexAttention has no backward on a CPU",
            applies=lambda case, form: (
                form == "flex" and case.device == "cpu" and case.mode == "forward_backward"
            ),
        ),
    ),
    caveats=(
        *CAVEATS,
        Caveat(
            what=NAN_LOST,
            reason=(
                "flex on a CPU: FlexAttention takes a row with a NaN among its scores for one that sees no "
                "key, and returns 0, or leaves the block out"
            ),
            applies=lambda case, form: form == "flex" and case.device == "cpu",
        ),
    ),
)
