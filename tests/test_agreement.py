"""The gate: what passes it, and that what should not pass does not."""

from __future__ import annotations

import numpy as np
import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import NUMPY_DTYPES, Inputs, make_inputs
from mtbench.measure.agreement import FLOORS, Judge
from mtbench.measure.plain import plain_evaluation
from mtbench.oracle import attention, gradients
from mtbench.spec import ATTENTIONS, DTYPES


def truth(case: Case, inputs: Inputs | None = None) -> tuple[Judge, dict[str, np.ndarray]]:
    """The judge, and outputs that are right to the dtype's rounding."""
    inputs = inputs or make_inputs(case)
    shape = (case.batch, case.heads)
    outputs = {"o": attention(case, inputs)}
    if case.mode == "forward_backward":
        found = gradients(case, inputs)
        outputs |= {
            name: getattr(found, name).reshape(*shape, *getattr(inputs, name[1]).shape[2:])
            for name in ("dq", "dk", "dv")
        }
    dtype = NUMPY_DTYPES[case.dtype]
    return Judge(case, inputs), {name: array.astype(dtype) for name, array in outputs.items()}


def both(kind: str = "momentum", **changes: object) -> Case:
    return Case(
        spec=AttentionSpec(kind=kind),  # type: ignore[arg-type]
        batch=2,
        heads=2,
        seq_len=33,
        head_dim=5,
        value_dim=3,
        mode="forward_backward",
    ).replace(**changes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_right_answer_passes(kind: str, dtype: str) -> None:
    judge, outputs = truth(both(kind, dtype=dtype))
    assert judge.contract_problem(outputs) is None
    assert all(a.passes for a in judge.agreement("parallel", outputs).values())


@pytest.mark.parametrize("name", ["o", "dq", "dk", "dv"])
def test_one_percent_off_is_wrong(name: str) -> None:
    judge, outputs = truth(both())
    outputs[name] = outputs[name] * np.float32(1.01)
    found = judge.agreement("chunked", outputs)
    assert [n for n, a in found.items() if not a.passes] == [name]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_number_is_wrong(bad: float) -> None:
    judge, outputs = truth(both())
    outputs["o"][1, 1, 32, 2] = bad
    assert not judge.agreement("chunked", outputs)["o"].passes


def test_one_wrong_row_is_wrong() -> None:
    judge, outputs = truth(both())
    outputs["o"][0, 0, 16] = outputs["o"][0, 0, 15]
    assert not judge.agreement("chunked", outputs)["o"].passes


def test_the_released_codes_variant_is_not_the_papers() -> None:
    """Eq 14's weight inside a causal kernel, which the published code trains with."""
    case = both(seq_len=64, spec=AttentionSpec(beta=0.6))
    judge, outputs = truth(case)
    inputs = make_inputs(case)
    phi = [np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (inputs.q, inputs.k)]
    scores = np.tril(phi[0] @ phi[1].swapaxes(2, 3))
    weight = (1 - 0.6 ** np.arange(64, 0, -1)) / (1 - 0.6)
    outputs["o"] = ((scores * weight) @ inputs.v / scores.sum(-1, keepdims=True)).astype(np.float32)
    assert judge.agreement("parallel", outputs)["o"].relative > 0.1


def test_what_is_missing_or_misshapen_is_named() -> None:
    judge, outputs = truth(both())
    assert judge.contract_problem({"o": outputs["o"]}) == "dq was not returned"
    assert "dk is float64" in str(judge.contract_problem({**outputs, "dk": outputs["dk"].astype(float)}))
    assert "o is float32 (2, 2, 32, 3)" in str(
        judge.contract_problem({**outputs, "o": outputs["o"][:, :, 1:]})
    )


@pytest.mark.parametrize("form", ["parallel", "chunked", "recurrent"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_the_plain_evaluation_is_an_evaluation(kind: str, causal: bool, form: str) -> None:
    """In float32 every form of it is right to a few units of rounding, lengths and kv_len included."""
    case = both(
        kind,
        spec=AttentionSpec(kind=kind, causal=causal),  # type: ignore[arg-type]
        seq_len=101,
        kv_len=101 if causal else 90,
        lengths=(70, 3),
    )
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    plain = plain_evaluation(case, form, inputs, judge.rows)
    for name in ("o", "dq", "dk", "dv"):
        relative, _ = judge._compare(name, getattr(plain, name))
        assert relative < 3e-6, name


def test_form_is_judged_against_like_form() -> None:
    """Near beta = 1 a recurrence in float32 loses more than the parallel form, and is allowed to."""
    case = Case(spec=AttentionSpec(beta=0.9999), heads=1, seq_len=6000, head_dim=4)
    judge = Judge(case, make_inputs(case))
    allowed = {form: judge._allowed(form)["o"] for form in ("parallel", "recurrent")}
    assert allowed["parallel"] == FLOORS["float32"]
    assert allowed["recurrent"] > 2 * FLOORS["float32"]


def changed(case: Case, **arrays: np.ndarray | float) -> Inputs:
    """The case's inputs, with some arrays whole of what is given."""
    inputs, dtype = make_inputs(case), NUMPY_DTYPES[case.dtype]
    new = {name: np.zeros_like(getattr(inputs, name)) + np.asarray(x, dtype) for name, x in arrays.items()}
    return Inputs(**{name: new.get(name, getattr(inputs, name)) for name in ("q", "k", "v", "do")})


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_an_output_that_cancels_is_judged_by_what_cancels(kind: str, causal: bool) -> None:
    """Keys and queries constant, values that add up to 0: rounding errors do not."""
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.0)  # type: ignore[arg-type]
    case = both(kind, spec=spec, seq_len=32)
    signs = np.where(np.arange(32) % 2, -1, 1)[:, None]
    judge, outputs = truth(case, changed(case, q=0.5, k=0.5, v=signs))
    if not causal:
        assert np.linalg.norm(judge._o) < 1e-3 * judge._sizes["o"]
    rng = np.random.default_rng(0)
    for name, array in outputs.items():
        found = judge.agreement("parallel", outputs | {name: array + size_of_one(judge, name, array) * 3e-6})
        assert found[name].passes, (name, found[name])
        noise = rng.standard_normal(array.shape).astype(np.float32)
        found = judge.agreement("parallel", outputs | {name: array + size_of_one(judge, name, array) * noise})
        assert found[name].relative > 0.5, (name, found[name])


def size_of_one(judge: Judge, name: str, array: np.ndarray) -> np.float32:
    """What a number of the array is as large as, by the judge's size of the whole."""
    return np.float32(judge._sizes[name] / array.size**0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_for_the_suites_own_inputs_the_size_is_the_norm(kind: str, dtype: str) -> None:
    judge, _ = truth(both(kind, dtype=dtype, seq_len=256, head_dim=64, value_dim=64))
    for name, size in judge._sizes.items():
        norm = np.linalg.norm(judge._truth(name))
        norm = max(norm, judge._gradients.terms.get(name, 0.0))  # type: ignore[union-attr]
        assert norm <= size < 1.1 * norm, name
    assert judge._score_error < FLOORS["float32"]


@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
def test_nothing_is_not_right_however_much_float16_loses(mode: str) -> None:
    """phi(-20) is 0 in float16, so the plain evaluation is 0; a kernel that scales first is not."""
    case = both(dtype="float16", mode=mode, spec=AttentionSpec(beta=0.9, eps=1e-12))
    inputs = make_inputs(case)
    low = Inputs(q=inputs.q, k=inputs.k - np.float16(20), v=inputs.v, do=inputs.do)
    judge, outputs = truth(case, low)
    assert all(a.passes for a in judge.agreement("parallel", outputs).values())
    nothing = {name: np.zeros_like(array) for name, array in outputs.items()}
    assert not judge.agreement("parallel", nothing)["o"].passes


def test_what_the_dtype_cannot_hold_is_not_asked_for() -> None:
    """Outputs below 6e-8 are 0 in float16."""
    case = both(dtype="float16", mode="forward")
    inputs = make_inputs(case)
    judge, outputs = truth(case, Inputs(q=inputs.q, k=inputs.k - np.float16(45), v=inputs.v))
    assert not outputs["o"].any()
    assert judge.agreement("parallel", outputs)["o"].passes
    assert not judge.agreement("parallel", {"o": outputs["o"] + np.float16(1e-4)})["o"].passes


def test_large_scores_are_known_to_their_own_rounding() -> None:
    case = both("softmax", seq_len=70, head_dim=16)
    inputs = make_inputs(case)
    judge, outputs = truth(case, Inputs(q=inputs.q + 30, k=inputs.k + 30, v=inputs.v, do=inputs.do))
    assert 1e-4 < judge.agreement("parallel", outputs)["o"].tolerance < 1e-3
    outputs["o"] = outputs["o"] * np.float32(1.001)
    assert not judge.agreement("parallel", outputs)["o"].passes


def test_a_long_case_is_judged_by_rows() -> None:
    case = Case(heads=2, seq_len=10_007, head_dim=4, mode="forward_backward")
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    assert "sampled rows of 2 (batch, head) pairs" in judge.rows.description
    assert judge.inputs.do is not None
    lit = {(b, h): set(p.tolist()) for b, h, p in judge.rows}
    for b, h, n in zip(*np.nonzero(judge.inputs.do.any(-1)), strict=True):
        assert n in lit[int(b), int(h)]
