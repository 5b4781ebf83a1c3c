from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench import AttentionSpec, Case
from mtbench.inputs import Inputs, make_inputs
from mtbench.oracle import Rows, attention, attention_by_recurrence, gradients, momentum_weight
from mtbench.spec import ATTENTIONS

LENGTHS = [1, 2, 3, 5, 7, 11, 16, 17, 31, 37, 64, 97]
BETAS = [0.0, 0.1, 0.6, 0.9, 0.99, 0.999]


@st.composite
def cases(draw: st.DrawFn, most: int = 97, mode: str = "forward") -> Case:
    causal = draw(st.booleans())
    batch = draw(st.integers(1, 3))
    n = draw(st.sampled_from([x for x in LENGTHS if x <= most]))
    m = n if causal else draw(st.sampled_from([x for x in LENGTHS if x <= most]))
    padded = draw(st.booleans())
    heads = draw(st.sampled_from([1, 2, 4]))
    return Case(
        spec=AttentionSpec(
            kind=draw(st.sampled_from(ATTENTIONS)),
            causal=causal,
            beta=draw(st.sampled_from(BETAS) | st.floats(0, 0.999)),
            gamma=draw(st.floats(0.01, 10)),
        ),
        batch=batch,
        heads=heads,
        kv_heads=draw(st.sampled_from([h for h in (1, 2, 4) if heads % h == 0]))
        if mode == "forward"
        else heads,
        seq_len=n,
        kv_len=m,
        lengths=tuple(draw(st.integers(1, m)) for _ in range(batch)) if padded else None,
        head_dim=draw(st.integers(1, 9)),
        value_dim=draw(st.integers(1, 9)),
        mode=mode,  # type: ignore[arg-type]
        seed=draw(st.integers(0, 1000)),
    )


def double(inputs: Inputs) -> Inputs:
    """float64 arrays, as the oracle's own tests need no rounding."""
    arrays = (inputs.q, inputs.k, inputs.v, inputs.do)
    q, k, v, do = (None if a is None else a.astype(np.float64) for a in arrays)
    return Inputs(q=q, k=k, v=v, do=do)  # type: ignore[arg-type]


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float, size: float = 1e-300) -> bool:
    return bool(np.linalg.norm(found - wanted) <= tolerance * max(np.linalg.norm(wanted), size))


@given(cases())
def test_the_recurrence_and_the_closed_form_agree(case: Case) -> None:
    inputs = double(make_inputs(case))
    assert close(attention_by_recurrence(case, inputs), attention(case, inputs), 1e-12)


@given(cases(), st.floats(-30, -5))
def test_they_agree_where_the_features_are_tiny(case: Case, shift: float) -> None:
    inputs = double(make_inputs(case))
    inputs = Inputs(q=inputs.q + shift / 2, k=inputs.k + shift / 4, v=inputs.v)
    # The recurrence's elu(x) + 1 loses digits that the closed form's exp(x) keeps: 1e-16 / exp(-20).
    assert close(attention_by_recurrence(case, inputs), attention(case, inputs), 1e-7)


@given(cases())
def test_any_sample_of_rows_is_part_of_the_whole(case: Case) -> None:
    inputs = make_inputs(case)
    whole = attention(case, inputs)
    rows = Rows.sample(case, each=7)
    assert close(attention(case, inputs, rows), rows.take(whole), 1e-13)


@given(cases())
def test_momentum_without_momentum_is_linear(case: Case) -> None:
    inputs = make_inputs(case)
    causal = case.spec.causal
    still = case.replace(spec=AttentionSpec(kind="momentum", causal=causal, beta=0.0, gamma=1.0))
    linear = case.replace(spec=AttentionSpec(kind="linear", causal=causal))
    assert np.array_equal(attention(still, inputs), attention(linear, inputs))


@given(cases())
def test_outputs_lie_within_the_weights_reach(case: Case) -> None:
    """With v all ones the output is a weighted mean of the weights: gamma .. gamma / (1 - beta)."""
    inputs = make_inputs(case)
    ones = Inputs(q=inputs.q, k=inputs.k, v=np.ones_like(inputs.v))
    o = attention(case, ones)
    low, high = case.spec.gamma, case.spec.gamma / (1 - case.spec.beta)
    slack = 1e-9 if case.spec.kind == "softmax" else 1e-3  # eps in the normaliser
    assert (o >= low * (1 - slack)).all()
    assert (o <= high * (1 + 1e-9)).all()


@given(cases(most=17, mode="forward_backward"))
def test_gradients_are_the_slope_of_the_recurrence(case: Case) -> None:
    """Along a random direction in q, k and v, against a central difference of the other oracle."""
    inputs = double(make_inputs(case))
    assert inputs.do is not None
    rng = np.random.default_rng(case.seed)
    found = gradients(case, inputs)
    # A step that never crosses x = 0, where phi' is continuous but phi'' is not.
    step = 1e-6
    along = [rng.standard_normal(a.shape) for a in (inputs.q, inputs.k, inputs.v)]

    def loss(t: float) -> float:
        q, k, v = (a + t * d for a, d in zip((inputs.q, inputs.k, inputs.v), along, strict=True))
        return float((attention_by_recurrence(case, Inputs(q=q, k=k, v=v)) * inputs.do).sum())

    slope = (loss(step) - loss(-step)) / (2 * step)
    shape = (case.batch, case.heads)
    analytic = sum(
        float((g.reshape(*shape, *a.shape[2:]) * a).sum())
        for g, a in zip((found.dq, found.dk, found.dv), along, strict=True)
    )
    scale = sum(float(np.abs(g).sum()) for g in (found.dq, found.dk, found.dv))
    assert abs(slope - analytic) <= 1e-6 * max(scale, 1.0)


@given(cases(most=37, mode="forward_backward"))
def test_gradients_of_a_sample_need_those_rows_alone(case: Case) -> None:
    inputs = make_inputs(case)
    assert inputs.do is not None
    rows = Rows.sample(case, each=6)
    do = np.zeros_like(inputs.do)
    for b, h, positions in rows:
        do[b, h, positions] = inputs.do[b, h, positions]
    sparse = Inputs(q=inputs.q, k=inputs.k, v=inputs.v, do=do)
    part, whole = gradients(case, sparse, rows), gradients(case, sparse)
    pairs = [b * case.heads + h for b, h, _ in rows]
    # dq and dk are differences, which may cancel to nothing: rounding is a fraction of their terms.
    assert close(part.dk, whole.dk[pairs], 1e-12, part.terms["dk"])
    assert close(part.dv, whole.dv[pairs], 1e-12)
    dq = whole.dq.reshape(case.batch, case.heads, case.seq_len, case.head_dim)
    assert close(part.dq, rows.take(dq), 1e-12, part.terms["dq"])


def test_padding_adds_nothing() -> None:
    short = Case(spec=AttentionSpec(causal=False), seq_len=5, kv_len=7, heads=2, head_dim=3)
    inputs = make_inputs(short)
    pad = ((0, 0), (0, 0), (0, 4), (0, 0))
    long = short.replace(kv_len=11, lengths=(7,))
    padded = Inputs(
        q=inputs.q,
        k=np.pad(inputs.k, pad, constant_values=5.0),
        v=np.pad(inputs.v, pad, constant_values=7.0),
    )
    assert np.array_equal(attention(long, padded), attention(short, inputs))


def test_a_worked_example_of_eq_12() -> None:
    """phi = 1 everywhere (x = 0), v = 1, 2, 4, beta 1/2, gamma 1: m = 1, 2.5, 5.25 and s = 1, 3.5, 8.75."""
    zeros = np.zeros((1, 1, 3, 1), np.float32)
    v = np.array([1, 2, 4], np.float32).reshape(1, 1, 3, 1)
    case = Case(spec=AttentionSpec(beta=0.5, eps=1e-300), heads=1, seq_len=3, head_dim=1)
    wanted = [1.0, 3.5 / 2, 8.75 / 3]
    for oracle in (attention, attention_by_recurrence):
        assert oracle(case, Inputs(q=zeros, k=zeros, v=v)).ravel() == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("beta", [0.9, 0.999, 1 - 1e-9, 1 - 1e-15])
def test_the_weight_keeps_its_digits_as_beta_nears_one(beta: float) -> None:
    from fractions import Fraction

    exact_beta, n = Fraction(beta), 5
    exact = sum(exact_beta**i for i in range(n + 1))  # (1 - beta^(n+1)) / (1 - beta)
    found = momentum_weight(AttentionSpec(beta=beta), np.array([n]))[0]
    assert abs(found - float(exact)) <= 4e-15 * float(exact)


def test_a_long_sequence_is_judged_by_a_sample() -> None:
    case = Case(heads=2, seq_len=200_003, head_dim=4, mode="forward_backward")
    rows = Rows.sample(case)
    assert not rows.complete
    assert set(rows.positions) == {(0, 0), (0, 1)}
    for positions in rows.positions.values():
        assert {0, 1, 200_001, 200_002} <= set(positions.tolist())
        for border in (16, 64, 128, 256, 1024):
            on_border = [p for p in positions if p and p % border == 0]
            assert any(p - 1 in positions for p in on_border)
    assert attention(case, make_inputs(case), rows).shape == (rows.count, 4)
