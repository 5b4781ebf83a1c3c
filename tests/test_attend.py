from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mtbench
from mtbench import AttentionSpec, BadInput, Case
from mtbench.inputs import Inputs
from mtbench.oracle import attention

pytestmark = pytest.mark.torch


def arrays(dtype: object = np.float32, n: int = 13, dv: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(2, 3, n, 5), (2, 3, n, 5), (2, 3, n, dv)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("kind", ["softmax", "linear", "momentum"])
def test_it_computes_the_attention(kind: str) -> None:
    q, k, v = arrays()
    spec = AttentionSpec(kind=kind, beta=0.5)  # type: ignore[arg-type]
    case = Case(spec=spec, batch=2, heads=3, seq_len=13, head_dim=5, value_dim=3)
    wanted = attention(case, Inputs(q=q, k=k, v=v))
    found = mtbench.attend(q, k, v, spec, device="cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_the_dtype_is_that_of_the_arrays() -> None:
    assert mtbench.attend(*arrays(ml_dtypes.bfloat16), device="cpu").dtype == ml_dtypes.bfloat16


def test_a_form_can_be_named() -> None:
    outputs = [mtbench.attend(*arrays(), form=form, device="cpu") for form in ("parallel", "recurrent")]
    np.testing.assert_allclose(*outputs, rtol=2e-5, atol=1e-6)


def test_padding_reaches_it() -> None:
    q, k, v = arrays()
    spec = AttentionSpec(causal=False)
    short = mtbench.attend(q, k[:, :, :4], v[:, :, :4], spec, device="cpu")
    padded = mtbench.attend(q, k, v, spec, lengths=(4, 4), device="cpu")
    np.testing.assert_allclose(padded, short, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": np.zeros((2, 3))}, "q has shape (2, 3)"),
        ({"k": np.zeros((2, 3, 13, 4), np.float32)}, "do not fit together"),
        ({"v": np.zeros((2, 3, 13, 3))}, "q, k and v are float32, float32, float64"),
        ({"backend": "trition"}, "did you mean 'triton'"),
        ({"form": "sdpa"}, "it has: parallel, chunked, recurrent"),
        ({"device": "tpu"}, "unknown device"),
        ({"backend": "jax", "lengths": (3, 4)}, "lengths (padding)"),
    ],
)
def test_bad_arguments_say_what_is_wrong(change: dict[str, object], says: str) -> None:
    q, k, v = arrays()
    with pytest.raises(BadInput) as error:
        mtbench.attend(**{"q": q, "k": k, "v": v, "device": "cpu", **change})  # type: ignore[arg-type]
    assert says in str(error.value)
