from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbench import AttentionSpec, BadInput, Case
from mtbench.spec import ATTENTIONS, DTYPES, MODES


def test_defaults_are_sensible() -> None:
    case = Case()
    assert case.spec == AttentionSpec(kind="momentum", causal=True, beta=0.9, gamma=1.0)
    assert (case.kv_len, case.value_dim, case.kv_heads) == (case.seq_len, case.head_dim, case.heads)


def test_softmax_and_linear_have_no_momentum() -> None:
    assert AttentionSpec(kind="linear", beta=0.5, gamma=3.0) == AttentionSpec(kind="linear")
    assert AttentionSpec(kind="softmax").beta == 0
    assert AttentionSpec(kind="linear").gamma == 1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("beta", 1.0, "outside [0, 1)"),
        ("beta", -0.1, "outside [0, 1)"),
        ("beta", float("nan"), "outside [0, 1)"),
        ("gamma", 0.0, "positive"),
        ("gamma", float("inf"), "positive"),
        ("gamma", float("nan"), "positive"),
        ("eps", 0.0, "positive"),
        ("scale", -1.0, "positive"),
        ("kind", "sofmax", "did you mean 'softmax'"),
        ("feature_map", "relu", "elu+1"),
    ],
)
def test_bad_specs_say_what_is_wrong(field: str, value: object, says: str) -> None:
    with pytest.raises(BadInput) as error:
        AttentionSpec(**{field: value})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seq_len": 0}, "seq_len = 0"),
        ({"seq_len": -3}, "seq_len = -3"),
        ({"seq_len": 1.5}, "seq_len = 1.5"),
        ({"value_dim": 0}, "value_dim = 0"),
        ({"kv_len": 7}, "only non-causal"),
        ({"kv_heads": 3}, "does not divide"),
        ({"dtype": "float23"}, "did you mean 'float32'"),
        ({"device": "gpu"}, "known: cpu, cuda"),
        ({"mode": "foward"}, "did you mean 'forward'"),
        ({"batch": 2, "lengths": (3,)}, "1 lengths"),
        ({"lengths": (0,)}, "length 0"),
        ({"lengths": (9999,)}, "length 9999"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_bad_cases_say_what_is_wrong(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as error:
        Case(**changes)  # type: ignore[arg-type]
    assert says in str(error.value)


def test_dependent_sizes_follow_in_replace() -> None:
    case = Case(seq_len=5, head_dim=3)
    assert case.replace(seq_len=9).kv_len == 9
    assert case.replace(head_dim=4).value_dim == 4
    assert case.replace(seq_len=9, spec=AttentionSpec(causal=False), kv_len=2).kv_len == 2


cases = st.builds(
    lambda kind, causal, beta, batch, heads, n, m, d, dv, dtype, mode, padded, seed: Case(
        spec=AttentionSpec(kind=kind, causal=causal, beta=beta),
        batch=batch,
        heads=heads,
        seq_len=n,
        kv_len=n if causal else m,
        lengths=(1,) * batch if padded else None,
        head_dim=d,
        value_dim=dv,
        dtype=dtype,
        mode=mode,
        seed=seed,
    ),
    *(st.sampled_from(ATTENTIONS), st.booleans(), st.sampled_from([0.0, 0.5, 0.999])),
    *(st.integers(1, 3) for _ in range(6)),
    *(st.sampled_from(DTYPES), st.sampled_from(MODES), st.booleans(), st.integers(0, 2)),
)


@given(cases)
def test_a_case_survives_json(case: Case) -> None:
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case


@given(cases, cases)
def test_ids_tell_cases_apart(a: Case, b: Case) -> None:
    assert (a.id == b.id) == (a == b)


def test_every_field_is_in_the_id() -> None:
    base = Case(spec=AttentionSpec(kind="momentum", causal=False), batch=2, heads=4)
    other = {
        "batch": 3,
        "heads": 8,
        "seq_len": 7,
        "kv_len": 9,
        "lengths": (4, 5),
        "head_dim": 3,
        "value_dim": 5,
        "kv_heads": 2,
        "dtype": "float16",
        "device": "cuda",
        "mode": "forward_backward",
        "seed": 3,
        "world_size": 2,
        "spec": AttentionSpec(kind="momentum", causal=False, beta=0.1),
    }
    assert set(other) == {field.name for field in dataclasses.fields(Case)}
    assert len({base.replace(**{name: value}).id for name, value in other.items()} | {base.id}) == 15
    for change in ({"gamma": 2.0}, {"eps": 1e-3}, {"causal": True}):
        spec = dataclasses.replace(base.spec, **change)  # type: ignore[arg-type]
        assert base.replace(spec=spec).id != base.id
    softmax = base.replace(spec=AttentionSpec(kind="softmax", causal=False))
    assert softmax.replace(spec=AttentionSpec(kind="softmax", causal=False, scale=1.0)).id != softmax.id


def test_ids_tell_numbers_apart_that_six_digits_do_not() -> None:
    """Of two cases of one id a run would measure one, and say nothing."""
    close = [Case(spec=AttentionSpec(beta=beta)) for beta in (0.9999995, 0.9999996)]
    assert close[0].id != close[1].id
    assert Case(spec=AttentionSpec(beta=0.9)).id.endswith("beta0.9-gamma1-seed0")
