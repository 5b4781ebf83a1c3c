"""The Triton kernels in Triton's interpreter, against the float64 oracle: softmax's and the chunked ones,
which here take short sequences too. test_triton_parallel.py has the parallel form's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from backends.by_distance import HALF_UNIT
from mtbench import AttentionSpec, Case, load_backend
from mtbench.inputs import Array, Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.oracle import attention
from mtbench.registry import import_part

torch = pytest.importorskip("torch")

UNAVAILABLE = load_backend("triton").unavailable("cpu")
if torch.cuda.is_available():
    UNAVAILABLE = "a GPU is here, and one process runs the kernels one way: test_triton_gpu.py has them on it"
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]

TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 4e-3}
HALVES = pytest.mark.parametrize("dtype", ["float32", "float16"])
SIZES = [
    (1, 5, 3), (2, 16, 16), (17, 40, 72), (63, 128, 33), (64, 64, 64), (65, 5, 3), (97, 16, 16),
    (130, 40, 72), (33, 3, 128), (70, 200, 136),
]  # fmt: skip
"""(seq_len, head_dim, value_dim)."""
LINEAR = [
    pytest.param(kind, causal, id=f"{kind}-{'causal' if causal else 'full'}")
    for kind in ("linear", "momentum")
    for causal in (True, False)
]
ALL = [
    pytest.param("softmax", True, id="softmax-causal"),
    pytest.param("softmax", False, id="softmax-full"),
    *LINEAR,
]


def attend(case: Case, inputs: Inputs) -> Array:
    kernel = load_backend("triton").build(case, "fused")
    kernel.load(inputs)
    result = kernel()
    kernel.wait(result)
    return kernel.outputs(result)["o"]


def outputs_of(case: Case, inputs: Inputs) -> Mapping[str, Array]:
    kernel = load_backend("triton").build(case, "fused")
    kernel.load(inputs)
    return kernel.outputs(kernel())


def check_gradients(case: Case) -> None:
    case = case.replace(mode="forward_backward")
    inputs = make_inputs(case)
    outputs = outputs_of(case, inputs)
    judge = Judge(case, inputs)
    assert judge.contract_problem(outputs) is None
    for name, agreement in judge.agreement("fused", outputs).items():
        assert agreement.relative < (2e-6 if case.dtype == "float32" else 1e-3), (name, agreement)


def error(case: Case, inputs: Inputs) -> float:
    o, truth = attend(case, inputs), attention(case, inputs)
    assert o.dtype == inputs.q.dtype
    assert o.shape == truth.shape
    return float(np.linalg.norm(o.astype(np.float64) - truth) / np.linalg.norm(truth))


def check(case: Case, inputs: Inputs | None = None) -> None:
    assert error(case, make_inputs(case) if inputs is None else inputs) < TOLERANCE[case.dtype]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated is full of NaN: an element that no kernel writes, or reads too early, shows."""
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *of, plain=plain, **how: plain(*of, **how).fill_(float("nan"))
        )


@pytest.fixture(autouse=True)
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the length."""
    monkeypatch.setattr(
        import_part("backends.triton.parallel_tiles"), "MOST_KEYS", dict.fromkeys((True, False), 0)
    )


@HALVES
@pytest.mark.parametrize(("n", "head_dim", "value_dim"), SIZES)
@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_any_size(kind: Any, causal: bool, n: int, head_dim: int, value_dim: int, dtype: Any) -> None:
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6)
    check(Case(spec=spec, heads=1, seq_len=n, head_dim=head_dim, value_dim=value_dim, dtype=dtype))


@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_tf32_loses_what_tf32_loses(kind: Any, causal: bool) -> None:
    """The interpreter multiplies in float32 what the kernels have rounded to TF32."""
    case = Case(
        spec=AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6),
        heads=1, seq_len=130, head_dim=40, value_dim=24, mode="forward_backward",
    )  # fmt: skip
    judge = Judge(case, make_inputs(case))
    kernel = load_backend("triton").build(case, "fused-tf32")
    kernel.load(judge.inputs)
    for name, agreement in judge.agreement("fused-tf32", kernel.outputs(kernel())).items():
        assert 1e-5 < agreement.relative < agreement.tolerance, (name, agreement)


@HALVES
@pytest.mark.parametrize(
    ("n", "head_dim", "value_dim"),
    [(1, 5, 3), (17, 40, 72), (64, 64, 64), (65, 72, 128), (131, 3, 33), (40, 130, 256), (40, 24, 129)],
)
@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_gradients_at_any_size(
    kind: Any, causal: bool, n: int, head_dim: int, value_dim: int, dtype: Any
) -> None:
    """72 and 128 are two blocks each, so that dk and dv have a launch of their own."""
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6)
    check_gradients(
        Case(spec=spec, batch=2, heads=1, seq_len=n, head_dim=head_dim, value_dim=value_dim, dtype=dtype)
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.999, 1 - 1e-9])
def test_gradients_at_any_momentum(beta: float, causal: bool) -> None:
    spec = AttentionSpec(causal=causal, beta=beta, gamma=2.0)
    check_gradients(Case(spec=spec, heads=1, seq_len=97, head_dim=16))


@HALVES
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("beta", [0.0, 1e-30, 0.1, 0.999, 1 - 1e-9])
def test_any_momentum(beta: float, causal: bool, dtype: Any) -> None:
    spec = AttentionSpec(causal=causal, beta=beta, gamma=2.0)
    check(Case(spec=spec, heads=1, seq_len=97, head_dim=16, dtype=dtype))


@HALVES
@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(24, 24), (64, 72)])
def test_the_momentum_at_which_a_chunk_begins_to_forget(
    head_dim: int, value_dim: int, forgets: bool, dtype: Any
) -> None:
    """At the largest beta at which P is of the last chunk alone and S of full weights, and just above it."""
    import_part("backends.triton.launch").enter("cpu")
    plans = import_part("backends.triton.plan")
    sizes: Any = {"heads": 1, "seq_len": 200, "head_dim": head_dim, "value_dim": value_dim, "dtype": dtype}
    plan = plans.make_plan(Case(**sizes), "cpu")
    border = HALF_UNIT[plan.dot] ** (1 / (plan.tiles.rows + 2))
    case = Case(spec=AttentionSpec(beta=border * (0.9999 if forgets else 1.0001)), **sizes)
    assert plans.make_plan(case, "cpu", segments=2).forgets(plan.tiles) == forgets
    check_gradients(case)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("dtype", "dims"), [("float32", (72, 128)), ("float16", (24, 20))])
def test_the_weights_within_a_chunk_from_two_factors(
    dtype: Any, dims: tuple[int, int], largest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the largest beta at which a chunk forgets, and the smallest whose factors float32 holds; dk and dv
    in two launches and in one."""
    import_part("backends.triton.launch").enter("cpu")
    plans = import_part("backends.triton.plan")
    sizes: Any = {"heads": 1, "seq_len": 70, "head_dim": dims[0], "value_dim": dims[1], "dtype": dtype}
    plan = plans.make_plan(Case(**sizes, mode="forward_backward"), "cpu")
    assert len(plan.gradient_tiles) == (3 if dtype == "float32" else 2)
    chunks = [tiles.rows for tiles in (plan.tiles, *plan.gradient_tiles)]
    if largest:
        beta = 0.9999 * HALF_UNIT[plan.dot] ** (1 / (min(chunks) + 2))
    else:
        beta = plans.FACTOR ** (1 / max(chunks))
    monkeypatch.setattr(plans.Plan, "factored", lambda self, tiles: self.forgets(tiles))
    check_gradients(Case(spec=AttentionSpec(beta=beta), **sizes))


@pytest.mark.parametrize(
    ("dtype", "dim", "beta", "groups", "factored"),
    [
        ("bfloat16", 128, 0.9, 8, (True, True, True, False)),
        ("bfloat16", 128, 0.5, 8, (True, True, True, False)),
        ("bfloat16", 128, 0.49, 8, (False, False, False, False)),  # its powers are too far apart
        ("bfloat16", 128, 0.95, 16, (False, False, False, False)),  # no chunk forgets
        ("bfloat16", 64, 0.9, 16, (False, False, False)),
        ("float32", 128, 0.5, 16, (False, False, False, False)),
    ],
)
def test_what_momentum_s_kernels_are_made_of(
    dtype: Any, dim: int, beta: float, groups: int, factored: tuple[bool, ...]
) -> None:
    """Which of them make the weights of two factors, and in how many sums the scan has z."""
    plans = import_part("backends.triton.plan")
    case = Case(spec=AttentionSpec(beta=beta), seq_len=300, head_dim=dim, dtype=dtype)
    plan = plans.make_plan(case, "cpu")
    assert tuple(plan.factored(tiles) for tiles in (plan.tiles, *plan.gradient_tiles)) == factored
    assert plan.config["factored"] == factored[0]
    assert plan.tiles.groups == groups
    linear = plans.make_plan(case.replace(spec=AttentionSpec(kind="linear")), "cpu")
    assert linear.tiles.groups == (8 if (dtype, dim) == ("bfloat16", 128) else 16)


def test_the_powers_reach_as_far_as_the_longest_chunk_of_any_kernel() -> None:
    plans = import_part("backends.triton.plan")
    case = Case(spec=AttentionSpec(beta=0.1), seq_len=300, head_dim=128, dtype="bfloat16")
    own = plans.make_plan(case, "cpu")
    longer = tuple(replace(tiles, rows=128, keys=128) for tiles in own.gradient_tiles)
    assert len(own.b) < 128
    assert len(plans.make_plan(case, "cpu", gradient_tiles=longer).b) >= 128


@pytest.mark.parametrize(
    ("n", "segments", "dims", "beta", "factored", "lengths"),
    [
        (1, 1, (128, 128), 0.7, True, None),
        (128, 1, (128, 64), 0.7, True, None),  # every chunk is whole
        (205, 2, (104, 40), 0.7, True, (205, 77)),
        (256, 2, (128, 33), 0.0, False, None),
        (205, 2, (72, 72), 0.1, False, None),
        (135, 2, (128, 24), 0.999, False, (1, 130)),  # no chunk forgets
    ],
)
def test_the_sum_of_the_keys_in_8_columns(
    n: int,
    segments: int,
    dims: tuple[int, int],
    beta: float,
    factored: bool,
    lengths: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the scan of bfloat16 has it at head_dim 128, which the interpreter does not multiply."""
    import_part("backends.triton.launch").enter("cpu")
    plans = import_part("backends.triton.plan")
    chosen = plans.linear_tiles

    def narrow(case: Case, *, tf32: bool) -> Any:
        return replace(chosen(case, tf32=tf32), warps=4, columns=8, factored=True)

    monkeypatch.setattr(plans, "linear_tiles", narrow)
    sizes: Any = {"seq_len": n, "head_dim": dims[0], "value_dim": dims[1], "lengths": lengths}
    sizes |= {"batch": 2 if lengths else 1, "heads": 1, "dtype": "float16"}
    case = Case(spec=AttentionSpec(beta=beta, gamma=0.6), **sizes)
    config = load_backend("triton").build(case, "fused").config
    assert (plans.make_plan(case, "cpu").tiles.groups, config["segments"]) == (8, segments)
    assert (config["forgets"], config["factored"]) == (beta < 0.9, factored)
    check_gradients(case)


@pytest.mark.parametrize(("kind", "causal"), LINEAR)
def test_states_of_dk_and_dv_that_are_wider_than_the_heads(
    kind: Any, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are in bfloat16, which the interpreter does not multiply; in several segments, with a ragged
    end."""
    import_part("backends.triton.launch").enter("cpu")
    monkeypatch.setattr(import_part("backends.triton.tiles"), "_head_columns", lambda case: 64)
    check_gradients(
        Case(spec=AttentionSpec(kind=kind, causal=causal), heads=1, seq_len=300, head_dim=24, value_dim=20)
    )


@pytest.mark.parametrize("causal", [True, False])
def test_momentum_without_memory_is_linear_attention(causal: bool) -> None:
    case = Case(spec=AttentionSpec(causal=causal, beta=0), heads=1, seq_len=70, head_dim=16)
    linear = case.replace(spec=AttentionSpec(kind="linear", causal=causal))
    inputs = make_inputs(case)
    np.testing.assert_allclose(attend(case, inputs), attend(linear, inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_batches_and_heads_stay_apart(kind: Any, causal: bool) -> None:
    check(Case(spec=AttentionSpec(kind=kind, causal=causal), batch=2, heads=3, seq_len=40, head_dim=8))


@pytest.mark.parametrize(
    ("n", "segments", "beta", "dtype"),
    [
        (205, 2, 0.999, "float16"),
        (333, 3, 0.999, "float32"),
        (256, 2, 0.999, "float32"),  # every chunk is whole
        (384, 3, 0.1, "float16"),  # and the momentum dies out within a segment
        (333, 3, 0.1, "float32"),
    ],
)
@pytest.mark.parametrize(("kind", "causal"), LINEAR)
def test_a_sequence_in_segments(
    kind: Any, causal: bool, n: int, segments: int, beta: float, dtype: Any
) -> None:
    spec = AttentionSpec(kind=kind, causal=causal, beta=beta)
    case = Case(spec=spec, heads=1, seq_len=n, head_dim=16, value_dim=8, dtype=dtype)
    assert load_backend("triton").build(case, "fused").config["segments"] == segments
    check_gradients(case)


@pytest.mark.parametrize("lengths", [None, (1, 130, 77)])
@pytest.mark.parametrize(
    ("kind", "causal", "seq_len"),
    [
        (kind, causal, n)
        for kind in ("softmax", "linear", "momentum")
        for causal, lengths in ((True, (130,)), (False, (1, 45, 130)))
        for n in lengths
    ],
)
def test_padding_and_keys_of_another_length(kind: Any, causal: bool, seq_len: int, lengths: Any) -> None:
    spec = AttentionSpec(kind=kind, causal=causal, gamma=0.6)
    batch = 1 if lengths is None else len(lengths)
    sizes: Any = {"heads": 2, "seq_len": seq_len, "kv_len": 130, "head_dim": 16, "value_dim": 8}
    case = Case(spec=spec, batch=batch, lengths=lengths, mode="forward_backward", **sizes)
    inputs = make_inputs(case)
    for index, length in enumerate(case.key_lengths):
        inputs.k[index, :, length:] = np.nan  # padding may be anything
        inputs.v[index, :, length:] = np.nan
    clean = Inputs(q=inputs.q, k=np.nan_to_num(inputs.k), v=np.nan_to_num(inputs.v), do=inputs.do)
    found, wanted = outputs_of(case, inputs), outputs_of(case, clean)
    for name in ("o", "dq", "dk", "dv"):
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    check_gradients(case)


@pytest.mark.parametrize("kind", ["linear", "momentum"])
@pytest.mark.parametrize(
    ("n", "segments", "dims", "beta", "lengths"),
    [
        (700, 3, (16, 16), 0.9, None),
        (640, 3, (40, 72), 0.999, None),
        (513, 5, (16, 130), 0.5, (400, 513)),
        (300, 2, (64, 64), 0.0, (1, 300)),
        (64, 1, (8, 8), 0.9, None),
    ],
)
def test_a_single_pass(
    kind: Any, n: int, segments: int, dims: tuple[int, int], beta: float, lengths: tuple[int, ...] | None
) -> None:
    """The look-back scan: each segment puts the earlier ones' states together by itself."""
    launch = import_part("backends.triton.launch")
    launch.enter("cpu")
    spec = AttentionSpec(kind=kind, beta=beta) if kind == "momentum" else AttentionSpec(kind=kind)
    case = Case(spec=spec, batch=2, heads=2, seq_len=n, head_dim=dims[0], value_dim=dims[1], lengths=lengths)
    plan = import_part("backends.triton.plan").make_plan(case, "cpu", segments=segments)
    assert plan.queries.segments == segments
    inputs = make_inputs(case)
    tensors = (torch.from_numpy(x) for x in (inputs.q, inputs.k, inputs.v))
    o, _ = import_part("backends.triton.single_pass").attention(plan, launch.start, *tensors)
    truth = attention(case, inputs)
    assert np.linalg.norm(o.numpy().reshape(truth.shape) - truth) < 2e-6 * np.linalg.norm(truth)


@pytest.mark.parametrize(("kind", "causal"), LINEAR)
def test_padding_across_segments(kind: Any, causal: bool) -> None:
    """A sequence that ends in its first segment, and queries in fewer segments than keys."""
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.999)
    sizes: Any = {"seq_len": 2100 if causal else 300, "kv_len": 2100, "head_dim": 16}
    case = Case(spec=spec, batch=2, heads=1, lengths=(70, 2000), **sizes)
    config = load_backend("triton").build(case, "fused").config
    assert (config["segments"], config["key_segments"]) == (17 if causal else 3, 17)
    check_gradients(case)


@HALVES
@pytest.mark.parametrize(("kind", "causal"), LINEAR)
@pytest.mark.parametrize("low", ["queries", "keys", "both"])
def test_very_negative_inputs(kind: Any, causal: bool, low: str, dtype: Any) -> None:
    """phi is 1e-7 to 1e-11 there: exp has to be kept exactly, and eps counts. Judged row by row, as a norm
    over all rows would not see the small ones."""
    case = Case(spec=AttentionSpec(kind=kind, causal=causal), heads=1, seq_len=70, head_dim=16, dtype=dtype)
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
    # A float16 output has steps of 6e-8.
    errors = errors[sizes > (1e-3 if dtype == "float16" else 0.0)]
    assert errors.max(initial=0.0) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_large_inputs_do_not_overflow_float16(kind: Any, causal: bool) -> None:
    """In linear and momentum attention phi(q) . phi(k) is about 1e7 here, and a state more."""
    spec = AttentionSpec(kind=kind, causal=causal)
    case = Case(spec=spec, heads=1, seq_len=130, head_dim=64, dtype="float16")
    inputs = make_inputs(case)
    factor = np.float16(30 if kind == "softmax" else 1000)
    check(case, Inputs(q=inputs.q * factor, k=inputs.k * factor, v=inputs.v))


@pytest.mark.parametrize("causal", [True, False])
def test_any_scale_of_softmax(causal: bool) -> None:
    check(Case(spec=AttentionSpec(kind="softmax", causal=causal, scale=7.5), heads=1, seq_len=70, head_dim=8))


def test_any_eps() -> None:
    check(Case(spec=AttentionSpec(eps=50.0), heads=1, seq_len=70, head_dim=8))


@HALVES
def test_nan_is_passed_on(dtype: Any) -> None:
    case = Case(heads=1, seq_len=70, head_dim=8, dtype=dtype)
    inputs = make_inputs(case)
    inputs.k[0, 0, 40, 3] = np.nan
    o = attend(case, inputs)
    assert not np.isnan(o[0, 0, :40]).any()
    assert np.isnan(o[0, 0, 40:]).all()


def mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the interpreter multiply bfloat16 operands by their values, not by their bits as integers, and
    round to nearest as a card does (it cuts)."""
    interpreter: Any = pytest.importorskip("triton.runtime.interpreter")
    bfloat16, float32 = interpreter.tl.bfloat16, interpreter.tl.float32
    builder = interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl

    def wide(x: Any) -> Any:
        if x.dtype.scalar != bfloat16:
            return x
        return interpreter.TensorHandle(x.data.view(ml_dtypes.bfloat16).astype(np.float32), float32)

    def right_cast(self: Any, x: Any, to: Any) -> Any:
        if (x.dtype.scalar, to.scalar) != (float32, bfloat16):
            return cast(self, x, to)
        return interpreter.TensorHandle(x.data.astype(ml_dtypes.bfloat16).view(np.uint16), bfloat16)

    monkeypatch.setattr(builder, "create_dot", lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest))
    monkeypatch.setattr(builder, "cast_impl", right_cast)


@pytest.mark.parametrize(("kind", "causal"), ALL)
def test_bfloat16_where_the_interpreter_is_mended(
    kind: Any, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declared limit is the interpreter's; the first error here says when it no longer is. Mended, the
    kernels are right in bfloat16.
    """
    spec = AttentionSpec(kind=kind, causal=causal, gamma=0.6)
    case = Case(spec=spec, heads=1, seq_len=97, head_dim=40, value_dim=24, dtype="bfloat16")
    inputs = make_inputs(case)
    with np.errstate(all="ignore"):
        assert not error(case, inputs) < 0.5
    mend(monkeypatch)
    check(case, inputs)
