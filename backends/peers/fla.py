"""flash-linear-attention: linear attention as the library has it, and momentum composed of two of its scans,
since it has no kernel for that::

    momentum = gamma / (1 - beta) (linear - beta decayed),  decayed_i = sum_{j<=i} beta^(i-j) (...)

All of it on [batch, positions, heads, dim] tensors, the library's own layout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from mtbench.backend import (
    GROUPED_HEADS,
    LENGTHS,
    DeclaredBackend,
    Kernel,
    Limit,
    Partial,
    Requirement,
)
from mtbench.frameworks import load_framework
from mtbench.inputs import Array, Inputs
from mtbench.spec import Case

__all__ = ["BACKEND"]

SCANS = {"bare": "linear", "decayed": "decayed"}
"""The forms that are one scan alone, and which."""


class Scans:
    """The library's two scans of one case, and the rest of an attention around them."""

    def __init__(self, case: Case) -> None:
        import torch

        self.case = case
        self.map = torch.compile(_map, dynamic=False)
        self.finish = torch.compile(functools.partial(_finish, case), dynamic=False)
        self._decay = torch.full((case.heads,), math.log(case.spec.beta or 1.0), device=case.device)

    def linear(self, phi_q: Any, phi_k: Any, v: Any) -> Any:
        """``sum_{j<=i} (phi(q_i) . phi(k_j)) v_j``, [batch, positions, heads, value_dim]."""
        from fla.ops.simple_gla import chunk_simple_gla

        return chunk_simple_gla(phi_q, phi_k, v, scale=1.0)[0]

    def decayed(self, phi_q: Any, phi_k: Any, v: Any) -> Any:
        """The same with beta^(i-j) before each term."""
        from fla.ops.simple_gla import chunk_simple_gla

        return chunk_simple_gla(phi_q, phi_k, v, g_gamma=self._decay, scale=1.0)[0]

    def normalised(self, q: Any, k: Any, v: Any) -> Any:
        """Linear attention, the normaliser by the library too."""
        from fla.ops.linear_attn import chunk_linear_attn

        return chunk_linear_attn(self.map(q), self.map(k), v, scale=1.0, normalize=True)[0]

    def together(self, phi_q: Any, phi_k: Any, linear: Any, decayed: Any) -> Any:
        """The attention, of its scans: the running sum of phi(k) by the library, the rest compiled."""
        from fla.ops.utils.cumsum import chunk_global_cumsum

        return self.finish(phi_q, chunk_global_cumsum(phi_k), linear, decayed)

    def two_scans(self, q: Any, k: Any, v: Any) -> Any:
        """Momentum attention."""
        mapped = self.map(q), self.map(k), v
        return self.together(*mapped[:2], self.linear(*mapped), self.decayed(*mapped))


def _map(x: Any) -> Any:
    import torch

    return (torch.nn.functional.elu(x.float()) + 1).to(x.dtype)


def _finish(case: Case, phi_q: Any, z: Any, linear: Any, decayed: Any) -> Any:
    spec = case.spec
    den = (phi_q.float() * z).sum(-1, keepdim=True) + spec.eps
    num = linear.float()
    if decayed is not None:
        num = spec.gamma / (1 - spec.beta) * (num - spec.beta * decayed.float())
    return (num / den).to(linear.dtype)


class OneScan:
    """A kernel that is one scan alone: phi(q) and phi(k) are made when it is loaded, and the rest of the
    attention when its outputs are read, neither of which is timed."""

    layout = "bnhd"
    untimed: str | None = None
    config: Mapping[str, Any] = {}

    def __init__(self, scans: Scans, which: str) -> None:
        self._scans, self._which = scans, which
        self._scan: Callable[..., Any] = getattr(scans, which)
        self._inner = load_framework("torch").kernel(self._keep, scans.case, layout=self.layout)
        self._qkv: tuple[Any, ...] = ()

    def _keep(self, q: Any, k: Any, v: Any) -> Any:
        self._qkv = q, k, v
        return v

    def load(self, inputs: Inputs) -> None:
        """See `Kernel.load`."""
        self._inner.load(inputs)
        self._inner()
        q, k, v = self._qkv
        self._qkv = self._scans.map(q), self._scans.map(k), v

    def __call__(self) -> Any:
        import torch

        with torch.no_grad():
            return (self._scan(*self._qkv),)

    def wait(self, result: Any) -> None:
        """See `Kernel.wait`."""
        self._inner.wait(result)

    def outputs(self, result: Any) -> Mapping[str, Array]:
        """See `Kernel.outputs`."""
        import torch

        with torch.no_grad():
            phi_q, phi_k, _ = self._qkv
            (found,) = result
            if self._which == "linear":
                o = self._scans.together(phi_q, phi_k, found, None)
            else:
                o = self._scans.together(phi_q, phi_k, self._scans.linear(*self._qkv), found)
        return self._inner.outputs((o,))


class Fla(DeclaredBackend):
    """The library's chunked kernels; it tunes them itself, at the first call."""

    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
        scans = Scans(case)
        if form in SCANS:
            return OneScan(scans, SCANS[form])
        function = scans.normalised if form == "normalised" else scans.two_scans
        return load_framework("torch").kernel(function, case, layout="bnhd")


BACKEND = Fla(
    name="fla",
    framework="torch",
    form_table={"linear": ("normalised", "bare"), "momentum": ("two-scans", "decayed")},
    devices=("cuda",),
    requires=(
        Requirement(distribution="torch", minimum="2.10"),
        Requirement(distribution="triton", minimum="3.5"),
        Requirement(distribution="fla-core", minimum="0.4"),
    ),
    limits=(
        GROUPED_HEADS,
        LENGTHS,
        Limit(
            kind="notyet",
            what="non-causal attention",
            reason="the library's scans are causal",
            applies=lambda case, form: not case.spec.causal,
        ),
        Limit(
            kind="notimpl",
            what="mode forward_backward, but for linear normalised",
            reason=(
                "the library's running sum has no backward of its own, and it refuses the decayed scan's on "
                "Hopper under Triton 3.4 to 3.7.0"
            ),
            applies=lambda case, form: form != "normalised" and case.mode == "forward_backward",
        ),
    ),
    partials=(
        Partial(
            what="without feature map and normaliser",
            applies=lambda case, form: form == "bare",
        ),
        Partial(
            what="the decayed one of two scans, without feature map and normaliser",
            applies=lambda case, form: form == "decayed",
        ),
    ),
)
