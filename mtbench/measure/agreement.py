"""Whether a kernel's numbers are right: its error against the float64 oracle, and what error is allowed.

The relative error of an array x is ``||x - ref|| / ||ref||``. Where what is summed cancels to about nothing
``||ref||`` gives way to something larger, as no arithmetic has a small error relative to nothing:

- for dq and dk, which are a difference of two sums, to the norm of those sums: with one position they are
  equal. The sums cancel as o does, so they are enlarged as its norm is by what follows;
- for every array, to the norm it has once each number of v and of do is given a sign at random: summands then
  add up as their rounding errors do. It is the larger where keys and queries are constant and the values, or
  do, add up to 0; for the suite's own v and do, which are symmetric about 0, it is about ``||ref||``.

It passes up to the larger of a floor per dtype and twice the error of the plain evaluation of the same form
in the same dtype (`mtbench.measure.plain`), but no more than `MOST`: where the plain evaluation loses all, as
phi of -20 in float16, a kernel that returns 0 would be right. Two things always pass: twice the error of the
truth rounded to the dtype, which may not hold it; and in softmax the error that scores have in float32, which
the exponential makes the weights' relative error. Where scores are in the hundreds, that is above the floor,
and the result hangs on so few of them that one evaluation's errors say little of another's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mtbench.backend import TF32
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.measure.plain import plain_evaluation
from mtbench.oracle import Gradients, Rows, attention, gradients
from mtbench.results import Agreement
from mtbench.spec import Case

__all__ = ["FLOORS", "Judge"]

FLOORS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
"""Relative errors that always pass, by dtype. TF32 has float16's mantissa, and its floor."""

MARGIN = 2.0
MOST = 0.5
"""However much the plain evaluation loses: returning 0 has a relative error of 1."""
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
        allowed = {}
        # Where an evaluation overflows it allows nothing; the floor stands.
        with np.errstate(over="ignore", invalid="ignore"):
            plain = plain_evaluation(self.case, form, self.inputs, self.rows)
            for name in self._names:
                lost, _ = self._compare(name, getattr(plain, name))
                held, _ = self._compare(name, self._truth(name).astype(NUMPY_DTYPES[self.case.dtype]))
                allowed[name] = max(
                    FLOORS["float16" if form.endswith(TF32) else self.case.dtype],
                    min(MARGIN * lost, MOST) if np.isfinite(lost) else 0.0,
                    MARGIN * held if np.isfinite(held) else 0.0,
                    self._score_error,
                )
        return allowed

    @functools.cached_property
    def _score_error(self) -> float:
        """A bound of the largest score's size, times what its sum of head_dim terms loses in float32: a walk
        of as many steps, each a rounding of what is summed so far."""
        case = self.case
        if case.spec.kind != "softmax":
            return 0.0
        q, k = (
            float(np.linalg.norm(x.astype(np.float32), axis=-1).max()) for x in (self.inputs.q, self.inputs.k)
        )
        return min(float(case.head_dim**0.5) / 3 * 2.0**-24 * case.softmax_scale * q * k, MOST)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("o", "dq", "dk", "dv") if self._gradients is not None else ("o",)

    def _truth(self, name: str) -> NDArray[np.float64]:
        return self._o if name == "o" else getattr(self._gradients, name)

    @functools.cached_property
    def _sizes(self) -> dict[str, float]:
        """What an error in each array is relative to."""
        # float32 is enough for a size, and has the range of the inputs' dtype.
        twin = self.case.replace(dtype="float32")
        with np.errstate(over="ignore", invalid="ignore"):
            signed = plain_evaluation(twin, "chunked", _with_signs(self.inputs, self.case.seed), self.rows)
        norms = {name: float(np.linalg.norm(self._truth(name))) for name in self._names}
        sizes = {}
        for name, norm in norms.items():
            uncancelled = float(np.linalg.norm(getattr(signed, name)))
            sizes[name] = max(norm, uncancelled) if np.isfinite(uncancelled) else norm
        if self._gradients is not None and norms["o"]:
            for name, norm in self._gradients.terms.items():
                sizes[name] = max(sizes[name], norm * sizes["o"] / norms["o"])
        return sizes

    def _compare(self, name: str, found: NDArray[np.floating]) -> tuple[float, float]:
        ref, size = self._truth(name), self._sizes[name]
        difference = np.asarray(found, np.float64) - ref
        if not np.isfinite(difference).all():
            return float("inf"), float("inf")
        error = float(np.linalg.norm(difference))
        relative = error / size if size else (0.0 if error == 0 else float("inf"))
        return relative, float(np.abs(difference).max())


def _with_signs(inputs: Inputs, seed: int) -> Inputs:
    """The inputs with every number of v and do plus or minus, at random."""
    rng = np.random.default_rng([seed, 1])

    def signed(x: Array) -> Array:
        return np.where(rng.random(x.shape, np.float32) < 0.5, -x, x)

    do = None if inputs.do is None else signed(inputs.do)
    return Inputs(q=inputs.q, k=inputs.k, v=signed(inputs.v), do=do)


def _only_rows(inputs: Inputs, rows: Rows) -> Inputs:
    if inputs.do is None:
        return inputs
    do = np.zeros_like(inputs.do)
    for b, h, positions in rows:
        do[b, h, positions] = inputs.do[b, h, positions]
    return Inputs(q=inputs.q, k=inputs.k, v=inputs.v, do=do)
