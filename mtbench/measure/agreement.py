"""Whether a kernel's numbers are right: its error against the float64 oracle, and what error is allowed.

The relative error of an array x is ``||x - ref|| / ||ref||``. For dq and dk, which are a difference of two
sums, ``||ref||`` gives way to the norm of those sums where that is larger: with one position they cancel to
about nothing, and no arithmetic has a small error relative to nothing.

It passes up to the larger of a floor per dtype and twice the error of the plain evaluation of the same form
in the same dtype (`mtbench.measure.plain`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.measure.plain import plain_evaluation
from mtbench.oracle import Gradients, Rows, attention, gradients
from mtbench.results import Agreement
from mtbench.spec import Case

__all__ = ["FLOORS", "Judge"]

FLOORS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
"""Relative errors that always pass, by dtype."""

MARGIN = 2.0
WHOLE = 1 << 24
"""Up to so many (query, key) pairs the whole output is judged, beyond it a sample of rows."""


class Judge:
    """Holds the truth of one case, for every backend and form that is asked about it."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.case = case
        pairs = case.batch * case.heads * case.seq_len * case.kv_len
        self.rows = Rows.all(case) if pairs <= WHOLE else Rows.sample(case)
        self.inputs = inputs if self.rows.complete else _only_rows(inputs, self.rows)
        """What the kernel is to be loaded with: with a sample of rows, ``do`` is zero on all others, so that
        those rows alone give dq, dk and dv."""
        self._o = attention(case, self.inputs, self.rows)
        self._gradients: Gradients | None = (
            gradients(case, self.inputs, self.rows) if case.mode == "forward_backward" else None
        )
        self._tolerances: dict[str, dict[str, float]] = {}

    def contract_problem(self, outputs: Mapping[str, Array]) -> str | None:
        """What is wrong with the outputs' names, shapes or dtypes, or None."""
        case = self.case
        wanted = {"o": (case.batch, case.heads, case.seq_len, case.value_dim)}
        if case.mode == "forward_backward":
            wanted |= {
                "dq": self.inputs.q.shape,
                "dk": self.inputs.k.shape,
                "dv": self.inputs.v.shape,
            }
        for name, shape in wanted.items():
            if name not in outputs:
                return f"{name} was not returned"
            found = outputs[name]
            if found.shape != shape or found.dtype != NUMPY_DTYPES[case.dtype]:
                return f"{name} is {found.dtype} {found.shape}, not {case.dtype} {shape}"
        return None

    def agreement(self, form: str, outputs: Mapping[str, Array]) -> dict[str, Agreement]:
        """The error and tolerance of o, and in mode forward_backward of dq, dk and dv."""
        if form not in self._tolerances:
            self._tolerances[form] = self._allowed(form)
        found = {"o": self._compare("o", self.rows.take(outputs["o"]))}
        if self._gradients is not None:
            for name in ("dq", "dk", "dv"):
                found[name] = self._compare(name, self._gradients.take(name, outputs[name]))
        return {
            name: Agreement(relative=relative, max_abs=largest, tolerance=self._tolerances[form][name])
            for name, (relative, largest) in found.items()
        }

    def _allowed(self, form: str) -> dict[str, float]:
        plain = plain_evaluation(self.case, form, self.inputs, self.rows)
        floor = FLOORS[self.case.dtype]
        names = ("o", "dq", "dk", "dv") if self._gradients is not None else ("o",)
        allowed = {}
        for name in names:
            relative, _ = self._compare(name, getattr(plain, name))
            # Where the plain evaluation overflows it allows nothing; the floor stands.
            allowed[name] = max(floor, MARGIN * relative) if np.isfinite(relative) else floor
        return allowed

    def _compare(self, name: str, found: NDArray[np.floating]) -> tuple[float, float]:
        ref = self._o if name == "o" else getattr(self._gradients, name)
        size = float(np.linalg.norm(ref))
        if self._gradients is not None and name in self._gradients.terms:
            size = max(size, self._gradients.terms[name])
        difference = np.asarray(found, np.float64) - ref
        if not np.isfinite(difference).all():
            return float("inf"), float("inf")
        error = float(np.linalg.norm(difference))
        relative = error / size if size else (0.0 if error == 0 else float("inf"))
        return relative, float(np.abs(difference).max())


def _only_rows(inputs: Inputs, rows: Rows) -> Inputs:
    if inputs.do is None:
        return inputs
    do = np.zeros_like(inputs.do)
    for b, h, positions in rows:
        do[b, h, positions] = inputs.do[b, h, positions]
    return Inputs(q=inputs.q, k=inputs.k, v=inputs.v, do=do)
