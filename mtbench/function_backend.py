"""A backend made of plain functions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mtbench.backend import (
    ALIKE,
    FORWARD_ONLY,
    AttentionFunction,
    Caveat,
    DeclaredBackend,
    Kernel,
    Limit,
    Requirement,
)
from mtbench.frameworks import load_framework
from mtbench.spec import Case

__all__ = ["FunctionBackend"]


class FunctionBackend(DeclaredBackend):
    """A backend made of plain functions; the framework's adapter does the copies, gradients and waiting.

    Args:
        name: what reports call it.
        framework: whose arrays the functions take: ``torch``, ``jax`` or ``numpy``.
        functions: ``(attention, form)`` to ``(q, k, v, case) -> o``. With torch and JAX the gradient in
            mode forward_backward is the framework's own; NumPy has none.
        limits: what it cannot do. Grouped heads, kv_len other than seq_len and lengths are ruled out
            unless ``general=True``.
        caveats: what it does in a way that a reader may not expect.
        general: the functions handle those three.
        devices, requires: as in `DeclaredBackend`.
    """

    functions: Mapping[tuple[str, str], AttentionFunction]

    def __init__(
        self,
        *,
        name: str,
        framework: str,
        functions: Mapping[tuple[str, str], AttentionFunction],
        limits: tuple[Limit, ...] = (),
        caveats: tuple[Caveat, ...] = (),
        general: bool = False,
        devices: tuple[str, ...] | None = None,
        requires: tuple[Requirement, ...] = (),
    ) -> None:
        table: dict[str, tuple[str, ...]] = {}
        for kind, form in functions:
            table[kind] = (*table.get(kind, ()), form)
        if framework == "numpy":
            limits = (*limits, FORWARD_ONLY)
            devices = devices or ("cpu",)
        super().__init__(
            name=name,
            framework=framework,
            form_table=table,
            devices=devices or ("cpu", "cuda"),
            requires=requires,
            limits=limits if general else (*ALIKE, *limits),
            caveats=caveats,
        )
        object.__setattr__(self, "functions", dict(functions))

    def build(self, case: Case, form: str) -> Kernel:
        """Binds the function to the case through the framework's adapter."""
        function = functools.partial(_call, self.functions[case.spec.kind, form], case)
        return load_framework(self.framework).kernel(function, case)


def _call(function: AttentionFunction, case: Case, q: Any, k: Any, v: Any) -> Any:
    return function(q, k, v, case)
