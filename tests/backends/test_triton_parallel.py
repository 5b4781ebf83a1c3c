"""The parallel form's Triton kernels, which short sequences take, in Triton's interpreter, against the
float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, load_backend
from mtbench.inputs import Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.oracle import attention
from mtbench.registry import import_part

from .test_triton import HALVES, LINEAR, TOLERANCE, attend, check, check_gradients, mend, outputs_of
from .test_triton import poisoned as poisoned
from .test_triton import pytestmark as pytestmark

torch = pytest.importorskip("torch")

SQUARE = [
    # seq_len, head_dim, value_dim, lengths, dtype
    (1, 5, 3, None, "float32"), (10, 17, 17, None, "float16"), (10, 139, 139, (10, 1), "float32"),
    (63, 64, 40, (1, 63), "float16"), (64, 17, 64, None, "float32"), (65, 72, 20, (10, 65), "float32"),
    (80, 3, 33, (64, 63), "float16"), (128, 16, 16, None, "float32"),
]  # fmt: skip
CROSSED = [
    # seq_len, kv_len, head_dim, value_dim, lengths
    (1, 64, 17, 9, None), (64, 1, 24, 17, None), (10, 65, 17, 9, (65, 64)), (65, 10, 64, 40, (10, 3)),
    (300, 63, 33, 17, (63, 1)), (300, 20, 8, 8, (3, 20)), (150, 65, 16, 20, (1, 65)), (20, 128, 17, 5, None),
]  # fmt: skip
"""300 queries are in several blocks, which each have dk and dv of their own; past 64 keys the backward is by
queries and by keys."""


def a_case(kind: Any, causal: bool, n: int, m: int, dims: tuple[int, int], lengths: Any, **rest: Any) -> Case:
    spec = AttentionSpec(kind=kind, causal=causal, **({"beta": 0.9, "gamma": 0.6} | rest.pop("spec", {})))
    sizes: Any = {"seq_len": n, "kv_len": m, "head_dim": dims[0], "value_dim": dims[1], "lengths": lengths}
    case = Case(spec=spec, batch=2, heads=1, **sizes, **rest)
    assert made_of(case).parallel
    return case


def made_of(case: Case) -> Any:
    import_part("backends.triton.launch").enter("cpu")
    return import_part("backends.triton.plan").make_plan(case, "cpu")


@pytest.mark.parametrize(("n", "head_dim", "value_dim", "lengths", "dtype"), SQUARE)
@pytest.mark.parametrize(("kind", "causal"), LINEAR)
def test_any_size(
    kind: Any, causal: bool, n: int, head_dim: int, value_dim: int, lengths: Any, dtype: Any
) -> None:
    check_gradients(a_case(kind, causal, n, n, (head_dim, value_dim), lengths, dtype=dtype))


@pytest.mark.parametrize(("n", "m", "head_dim", "value_dim", "lengths"), CROSSED)
@pytest.mark.parametrize("kind", ["linear", "momentum"])
def test_keys_of_another_length(
    kind: Any, n: int, m: int, head_dim: int, value_dim: int, lengths: Any
) -> None:
    check_gradients(a_case(kind, False, n, m, (head_dim, value_dim), lengths))


def test_both_ways_through_the_backward_are_there() -> None:
    """One launch and two; dk and dv whole and in parts."""
    found = set()
    for n, m, *_ in CROSSED:
        tiles = made_of(a_case("linear", False, n, m, (16, 16), None, mode="forward_backward")).gradient_tiles
        found.add((len(tiles), n > tiles[-1].rows))
    assert found == {(1, False), (1, True), (2, False), (2, True)}


def test_what_takes_the_parallel_form() -> None:
    """Keys up to a tile, however many queries; wgmma up to one chunk."""
    full, causal = AttentionSpec(causal=False), AttentionSpec()
    odd: Any = {"head_dim": 139, "dtype": "bfloat16"}
    for case, parallel in (
        (Case(spec=full, seq_len=5000, kv_len=128), True),
        (Case(spec=full, seq_len=10, kv_len=129), False),
        (Case(spec=causal, seq_len=128, **odd), True),
        (Case(spec=causal, seq_len=129, **odd), False),
        (Case(spec=causal, seq_len=64, dtype="bfloat16"), True),
        (Case(spec=full, seq_len=64, kv_len=65, dtype="bfloat16"), False),
        (Case(spec=AttentionSpec(kind="softmax"), seq_len=10), False),
    ):
        plan = made_of(case)
        assert plan.parallel == parallel, case.id
        assert plan.config.get("parallel", False) == parallel


@pytest.mark.parametrize("n", [1, 33, 64])
@pytest.mark.parametrize("dims", [(8, 128), (32, 32), (64, 16), (128, 128)])
def test_a_wgmma_has_64_columns(dims: tuple[int, int], n: int) -> None:
    """Of a product of 64 rows by 4 warps in bfloat16: with 32, dk was wrong on a Hopper."""
    case = a_case("linear", False, n, n, dims, None, dtype="bfloat16", mode="forward_backward")
    plan = made_of(case)
    for tiles in (plan.tiles, *plan.gradient_tiles):
        wide = min(tiles.rows, tiles.keys) == 64
        assert tiles.warps == (4 if wide else 2)
        assert min(tiles.head_dim, tiles.value_dim) >= 64 or not wide


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("beta", [0.0, 1e-30, 0.1, 0.999, 1 - 1e-9])
def test_any_momentum(beta: float, causal: bool) -> None:
    check_gradients(a_case("momentum", causal, 65, 65, (16, 8), (65, 20), spec={"beta": beta, "gamma": 2.0}))


@pytest.mark.parametrize(("kind", "causal"), LINEAR)
@pytest.mark.parametrize("n", [40, 80])
def test_tf32_loses_what_tf32_loses(kind: Any, causal: bool, n: int) -> None:
    case = a_case(kind, causal, n, n, (40, 24), None, mode="forward_backward")
    judge = Judge(case, make_inputs(case))
    kernel = load_backend("triton").build(case, "fused-tf32")
    kernel.load(judge.inputs)
    for name, agreement in judge.agreement("fused-tf32", kernel.outputs(kernel())).items():
        assert 1e-5 < agreement.relative < agreement.tolerance, (name, agreement)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [40, 80])
def test_padding_may_be_anything(causal: bool, n: int) -> None:
    case = a_case("momentum", causal, n, n, (17, 9), (n, 7), mode="forward_backward")
    inputs = make_inputs(case)
    inputs.k[1, :, 7:] = np.nan
    inputs.v[1, :, 7:] = np.nan
    clean = Inputs(q=inputs.q, k=np.nan_to_num(inputs.k), v=np.nan_to_num(inputs.v), do=inputs.do)
    found, wanted = outputs_of(case, inputs), outputs_of(case, clean)
    for name in ("o", "dq", "dk", "dv"):
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    # Nor does what is wrong with a query reach them.
    inputs.q[1, 0, 3, 2] = np.nan
    found = outputs_of(case, inputs)
    for name in ("dk", "dv"):
        assert not found[name][1, :, 7:].any(), name


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [40, 80])
def test_a_call_may_have_a_sequence_without_keys(causal: bool, n: int) -> None:
    """A case's lengths are 1 at the least; those of a call are not looked at."""
    case = a_case("momentum", causal, n, n, (17, 9), (n, n), mode="forward_backward")
    inputs = make_inputs(case)
    kernel: Any = load_backend("triton").build(case, "fused")
    qkv = [torch.from_numpy(x).requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    o = kernel.apply(*qkv, torch.tensor([0, n]))
    found = (o, *torch.autograd.grad(o, qkv, torch.from_numpy(inputs.do)))
    for array in found:
        assert not array[0].any()
        assert array[1].isfinite().all()
        assert array[1].any()


@HALVES
@pytest.mark.parametrize(("kind", "causal"), LINEAR)
@pytest.mark.parametrize("low", ["queries", "keys", "both"])
def test_very_negative_inputs(kind: Any, causal: bool, low: str, dtype: Any) -> None:
    """phi is 1e-7 to 1e-11 there, and eps counts. Judged row by row, as a norm over all rows would not see
    the small ones."""
    case = a_case(kind, causal, 70, 70, (16, 16), None, dtype=dtype)
    drawn = make_inputs(case)
    shift = np.where(np.arange(70) % 3 == 1, -25, -16)[:, None]
    inputs = Inputs(
        q=(drawn.q + shift * (low != "keys")).astype(drawn.q.dtype),
        k=(drawn.k + shift * (low != "queries")).astype(drawn.k.dtype),
        v=drawn.v,
    )
    o, truth = attend(case, inputs).astype(np.float64), attention(case, inputs)
    sizes = np.linalg.norm(truth, axis=-1)
    errors = np.linalg.norm(o - truth, axis=-1) / sizes
    errors = errors[sizes > (1e-3 if dtype == "float16" else 0.0)]  # a float16 output has steps of 6e-8
    assert errors.max(initial=0.0) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize(("kind", "causal"), LINEAR)
def test_large_inputs_do_not_overflow_float16(kind: Any, causal: bool) -> None:
    case = a_case(kind, causal, 100, 100, (64, 64), None, dtype="float16")
    inputs = make_inputs(case)
    check(case, Inputs(q=inputs.q * np.float16(1000), k=inputs.k * np.float16(1000), v=inputs.v))


def test_a_nan_in_a_key_reaches_those_who_see_it() -> None:
    case = a_case("momentum", True, 70, 70, (8, 8), None)
    inputs = make_inputs(case)
    inputs.k[0, 0, 40, 3] = np.nan
    o = attend(case, inputs)
    assert not np.isnan(o[0, 0, :40]).any()
    assert np.isnan(o[0, 0, 40:]).all()


@pytest.mark.parametrize(("kind", "causal"), LINEAR)
@pytest.mark.parametrize(("n", "head_dim"), [(40, 40), (80, 33)])
def test_bfloat16_where_the_interpreter_is_mended(
    kind: Any, causal: bool, n: int, head_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend(monkeypatch)
    case = a_case(kind, causal, n, n, (head_dim, head_dim), (n, 7), dtype="bfloat16", mode="forward_backward")
    judge = Judge(case, make_inputs(case))
    kernel = load_backend("triton").build(case, "fused")
    kernel.load(judge.inputs)
    for name, agreement in judge.agreement("fused", kernel.outputs(kernel())).items():
        assert agreement.passes, (name, agreement)
