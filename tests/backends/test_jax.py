"""The JAX backend against the equations in float64 NumPy, written out here and shared with nothing."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from backends.jax import BACKEND, arithmetic, chunked, linear, plan_of, schedules, softmax, weights  # noqa: E402
from mtbench.backend import Requirement  # noqa: E402
from mtbench.frameworks.jax import kernel  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.spec import AttentionSpec, Case  # noqa: E402

pytestmark = pytest.mark.jax

TOLERANCE = {"float32": 3e-6, "bfloat16": 8e-3, "float16": 1.2e-3}
"""Relative L2, about twice what these sizes show: no rounding step can hide one too many in it."""

DIMS = [(5, 3), (16, 16), (40, 72), (64, 64)]
BETAS = [0.9, 0.0, 0.1, 0.999]
KERNELISED = [
    (kind, form) for kind in ("linear", "momentum") for form in ("parallel", "chunked", "recurrent")
]
EVERY_FORM = [("softmax", "parallel"), ("softmax", "chunked"), ("softmax", "xla"), *KERNELISED]


def phi(x: Any) -> Any:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def slope(x: Any) -> Any:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def truth(case: Case, inputs: Inputs) -> dict[str, Any]:
    """Eq 1, 8, 13 and 14, and their gradients, one N x N matrix at a time."""
    spec = case.spec
    q, k, v = (np.asarray(x, np.float64) for x in (inputs.q, inputs.k, inputs.v))
    do = None if inputs.do is None else np.asarray(inputs.do, np.float64)
    i, j = np.indices((case.seq_len, case.seq_len))
    seen = (j <= i) if spec.causal else np.ones_like(i, bool)
    if spec.kind == "softmax":
        scores = np.where(seen, q @ k.swapaxes(-1, -2) * case.softmax_scale, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        if do is None:
            return {"o": p @ v}
        dp = do @ v.swapaxes(-1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * case.softmax_scale
        return {"o": p @ v, "dq": ds @ k, "dk": ds.swapaxes(-1, -2) @ q, "dv": p.swapaxes(-1, -2) @ do}
    n = np.maximum((i - j if spec.causal else case.seq_len - 1 - j) + 1, 1)
    w = seen * spec.gamma * sum_of_powers(spec.beta, n)
    scores = phi(q) @ phi(k).swapaxes(-1, -2)
    den = (scores * seen).sum(-1, keepdims=True) + spec.eps
    o = (scores * w) @ v / den
    if do is None:
        return {"o": o}
    g, delta = do / den, (do * o).sum(-1, keepdims=True) / den
    ds = w * (g @ v.swapaxes(-1, -2)) - seen * delta
    return {
        "o": o,
        "dq": ds @ phi(k) * slope(q),
        "dk": ds.swapaxes(-1, -2) @ phi(q) * slope(k),
        "dv": (scores * w).swapaxes(-1, -2) @ g,
    }


def sum_of_powers(beta: float, n: Any) -> Any:
    """1 + beta + ... + beta^(n-1), by adding them up."""
    return np.cumsum(beta ** np.arange(n.max(), dtype=np.float64))[n - 1]


def run(case: Case, form: str, inputs: Inputs) -> dict[str, Any]:
    kernel = BACKEND.build(case, form)
    kernel.load(inputs)
    result = kernel()
    kernel.wait(result)
    return dict(kernel.outputs(result))


def check(case: Case, found: dict[str, Any], inputs: Inputs, tolerance: float | None = None) -> None:
    expected = truth(case, inputs)
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        assert found[name].shape == right.shape
        assert found[name].dtype == inputs.q.dtype
        got = found[name].astype(np.float64)
        assert np.isfinite(got).all(), name
        error = np.linalg.norm(got - right) / np.linalg.norm(right)
        assert error <= (tolerance or TOLERANCE[case.dtype]), f"{name} of {case.id}: {error:.2e}"


def a_case(number: int, kind: str, form: str, seq_len: int, **more: Any) -> Case:
    """The number turns every wheel: dims, dtype, beta and causality."""
    head_dim, value_dim = DIMS[number % 4]
    more.setdefault("dtype", ("float32", "bfloat16", "float16")[number % 3])
    if form == "xla":
        value_dim = head_dim
        more["dtype"] = more["dtype"].replace("float16", "float32").replace("bfloat32", "bfloat16")
    spec = AttentionSpec(
        kind=kind,  # type: ignore[arg-type]
        causal=number % 5 < 3,
        beta=BETAS[(number // 2) % 4],
        gamma=0.6 if number % 2 else 2.0,
        scale=0.3 if number % 2 else None,
    )
    return Case(
        spec=spec, heads=2, seq_len=seq_len, head_dim=head_dim, value_dim=value_dim, seed=number, **more
    )


SIZES = {
    # Where a form has borders: 64 tokens or positions for the recurrent and chunked ones.
    ("softmax", "chunked"): (1, 2, 97, 257),
    ("linear", "recurrent"): (1, 63, 130),
    ("momentum", "recurrent"): (2, 64, 65, 257),
    ("linear", "chunked"): (2, 64, 97, 257),
    ("momentum", "chunked"): (1, 2, 17, 63, 64, 65, 97, 130, 257),
}


@pytest.mark.parametrize(
    "case_form",
    [
        pytest.param((a_case(3 * index + place, kind, form, seq_len), form), id=f"{kind}-{form}-{seq_len}")
        for place, (kind, form) in enumerate(EVERY_FORM)
        for index, seq_len in enumerate(SIZES.get((kind, form), (1, 17, 130)))
    ],
)
def test_forward(case_form: tuple[Case, str]) -> None:
    case, form = case_form
    assert BACKEND.unsupported(case, form) is None
    inputs = make_inputs(case)
    check(case, run(case, form, inputs), inputs)


@pytest.mark.parametrize(
    ("kind", "form", "dtype", "causal"),
    [
        *((kind, form, "float32", True) for kind, form in EVERY_FORM),
        ("softmax", "chunked", "float32", False),
        *((kind, form, "float32", False) for kind, form in KERNELISED[3:]),
        *((kind, form, dtype, True) for kind, form in KERNELISED[3:] for dtype in ("bfloat16", "float16")),
        ("softmax", "chunked", "bfloat16", True),
        ("softmax", "chunked", "float16", True),
    ],
)
def test_gradients(kind: str, form: str, dtype: str, causal: bool) -> None:
    case = Case(
        spec=AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6),  # type: ignore[arg-type]
        heads=2,
        seq_len=130,
        head_dim=40,
        value_dim=40 if form == "xla" else 24,
        dtype=dtype,  # type: ignore[arg-type]
        mode="forward_backward",
    )
    inputs = make_inputs(case)
    check(case, run(case, form, inputs), inputs)


def differentiated(function: Any, case: Case) -> Any:
    """`(q, k, v, do) -> o, dq, dk, dv` of a function of this backend, without the adapter."""

    def program(q: Any, k: Any, v: Any, do: Any) -> dict[str, Any]:
        o, back = jax.vjp(partial(function, case=case), q, k, v)
        return dict(zip(("o", "dq", "dk", "dv"), (o, *back(do)), strict=True))

    compiled = jax.jit(program)
    return lambda x: {name: np.asarray(y) for name, y in compiled(x.q, x.k, x.v, x.do).items()}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (partial(softmax.chunked, size=32), "softmax"),
        (partial(chunked.chunked, chosen=schedules.Schedule(32, chunks=3)), "linear"),
        (partial(chunked.chunked, chosen=schedules.Schedule(7, chunks=5)), "momentum"),
        (partial(chunked.chunked, chosen=schedules.Schedule(7, chunks=1)), "momentum"),
    ],
)
def test_every_schedule_gives_the_same(function: Any, kind: str, causal: bool) -> None:
    """Blocks and chunks many times shorter than the sequence, also as they are taken on a GPU."""
    case = Case(
        spec=AttentionSpec(kind=kind, causal=causal, beta=0.999, gamma=2.0),  # type: ignore[arg-type]
        heads=2,
        seq_len=97,
        head_dim=8,
        value_dim=5,
        mode="forward_backward",
    )
    inputs = make_inputs(case)
    check(case, differentiated(function, case)(inputs), inputs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("function", [linear.parallel, chunked.chunked, linear.recurrent])
def test_large_inputs(function: Any, dtype: str) -> None:
    """phi(-20) is 2e-9, below float16's range; a product of two of 300 is above it."""
    case = Case(heads=1, seq_len=70, head_dim=16, dtype=dtype, mode="forward_backward")  # type: ignore[arg-type]
    drawn, compiled = make_inputs(case), differentiated(function, case)

    def moved(q: float, k: float) -> Inputs:
        return Inputs(q=(drawn.q + q).astype(dtype), k=(drawn.k + k).astype(dtype), v=drawn.v, do=drawn.do)

    for q, k in ((-20, 0), (0, -12), (-8, -8)):
        check(case, compiled(moved(q, k)), moved(q, k))
    for q, k in ((300, 300), (-60000, 3), (-60000, -60000), (3, -60000)):
        found, right = compiled(moved(q, k)), truth(case, moved(q, k))
        for name in right:
            assert np.isfinite(found[name].astype(np.float64)).all()
        for name in ("o", "dv"):
            np.testing.assert_allclose(found[name].astype(np.float64), right[name], rtol=0.01, atol=0.02)


def test_float16_and_float32_keep_their_digits_over_many_positions() -> None:
    """A sum of 3000 phi(k) is past float16; .999 is 1.3e-8 off in float32, which a recurrence multiplies."""
    spec = AttentionSpec(beta=0.999, gamma=2.0)
    case = Case(spec=spec, heads=1, seq_len=3000, head_dim=8, dtype="float16")
    inputs = make_inputs(case)
    inputs = Inputs(q=inputs.q, k=inputs.k + np.float16(20), v=inputs.v)
    check(case, run(case, "chunked", inputs), inputs)
    for form in ("parallel", "chunked"):
        near_1 = case.replace(spec=AttentionSpec(beta=1 - 2.0**-40), seq_len=200)
        check(near_1, run(near_1, form, make_inputs(near_1)), make_inputs(near_1))
    case = case.replace(dtype="float32")
    inputs = make_inputs(case)
    check(case, run(case, "recurrent", inputs), inputs, tolerance=1.5e-6)
    check(case, run(case, "chunked", inputs), inputs, tolerance=1.5e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_future_changes_no_bit_of_the_past(dtype: str) -> None:
    case = Case(heads=1, seq_len=70, head_dim=16, dtype=dtype)  # type: ignore[arg-type]
    inputs = make_inputs(case)
    later = np.array(inputs.k)
    later[:, :, 40:] = later[:, :, 40:] * 8 + 5
    compiled = jax.jit(partial(chunked.chunked, case=case))
    before = np.asarray(compiled(inputs.q, inputs.k, inputs.v))
    after = np.asarray(compiled(inputs.q, later, inputs.v))
    assert np.array_equal(before[:, :, :40], after[:, :, :40])
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    ("weights_met", "states_met"),
    [
        ("apart", "apart"),
        ("inside", "apart"),
        ("rounded", "apart"),
        ("inside", "inside"),
        ("rounded", "inside"),
    ],
)
@pytest.mark.parametrize(("beta", "chunks"), [(0.0, 3), (0.9, 3), (0.999, 8)])
def test_the_form_of_a_gpu_in_bfloat16(
    beta: float, chunks: int, weights_met: Any, states_met: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it rounds and where, in steps of 3 chunks and in one; a CPU has no TF32, so states are exact."""
    monkeypatch.setattr(chunked, "mixed", lambda *operands: arithmetic.exact(*operands[:3]))
    case = Case(
        spec=AttentionSpec(beta=beta, gamma=0.6),
        heads=2,
        seq_len=250,
        head_dim=40,
        value_dim=24,
        dtype="bfloat16",
        device="cuda",
        mode="forward_backward",
    )
    inputs = make_inputs(case)
    chosen = schedules.Schedule(32, chunks, weights_met, states_met)
    check(case, differentiated(partial(chunked.chunked, chosen=chosen), case)(inputs), inputs, 1.2e-2)


def on_a_gpu(kind: str, **sizes: Any) -> Case:
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    return Case(spec=spec, **{"dtype": "bfloat16", "device": "cuda", "head_dim": 64, **sizes})


@pytest.mark.parametrize("kind", ["linear", "momentum"])
@pytest.mark.parametrize(("seq_len", "dim"), [(301, 128), (513, 64), (70, 64), (64, 64)])
def test_the_schedules_chosen_for_a_gpu(
    kind: str, seq_len: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the numbers alone: lengths that no chunk divides, and one of a single chunk."""
    monkeypatch.setattr(chunked, "mixed", lambda *operands: arithmetic.exact(*operands[:3]))
    case = on_a_gpu(kind, heads=1, seq_len=seq_len, head_dim=dim)
    chosen = schedules.schedule(case, merging=True)
    assert chosen.states == ("inside" if chosen.chunk in (64, 128) else "apart")
    inputs = make_inputs(case)
    program = jax.jit(partial(chunked.chunked, case=case, chosen=chosen))
    check(case, {"o": np.asarray(program(inputs.q, inputs.k, inputs.v))}, inputs)


def test_the_schedule_of_a_gpu() -> None:
    short = {"batch": 8, "heads": 16, "seq_len": 4096}
    long = {"batch": 1, "heads": 16, "seq_len": 16384}

    def chosen(kind: str, merging: bool = True, **sizes: Any) -> tuple[Any, ...]:
        return tuple(schedules.schedule(on_a_gpu(kind, **sizes), merging=merging))

    assert chosen("linear", **short) == (64, 64, "rounded", "inside")
    assert chosen("linear", **long) == (128, 128, "rounded", "inside")
    assert chosen("momentum", **short) == (128, 32, "inside", "inside")
    assert chosen("momentum", **long) == (128, 128, "inside", "inside")
    assert chosen("linear", **short, head_dim=128) == (128, 32, "rounded", "inside")
    assert chosen("linear", merging=False, **short) == (64, 64, "rounded", "apart")
    for kind in ("linear", "momentum"):
        for other in (
            {"mode": "forward_backward"},
            {"head_dim": 40},
            {"value_dim": 128},
            {"seq_len": 50},
            {"dtype": "float16"},
        ):
            assert chosen(kind, **short | other)[3] == "apart", other
        for dtype in ("float32", "float16"):
            assert chosen(kind, **short, dtype=dtype)[2] == "apart"
    assert chosen("momentum", **short | {"seq_len": 100}) == (100, 1, "inside", "apart")
    assert chosen("linear", **long, mode="forward_backward") == (64, 256, "rounded", "apart")
    assert chosen("linear", **short, mode="forward_backward", head_dim=128)[0] == 128
    assert chosen("momentum", **short, device="cpu") == (64, 1, "apart", "apart")


def needing(version: str) -> Requirement:
    return Requirement(distribution="jaxlib", minimum=version)


def test_the_options_of_a_program_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that merge go with the schedule that needs them, and with nothing else; the row says so."""
    monkeypatch.setattr(schedules, "MERGING", needing("0.8"))
    for kind in ("linear", "momentum"):
        case = on_a_gpu(kind, seq_len=1024)
        plan = plan_of(case, "chunked")
        assert plan.options == {"xla_gpu_experimental_gemm_fusion_v2": True}
        assert plan.config["compiler_options"] == plan.options
        assert plan.config["states"] == plan.function.keywords["chosen"].states == "inside"  # type: ignore[attr-defined]
        json.dumps(plan.config)
        on_cpu, with_gradients = case.replace(device="cpu"), case.replace(mode="forward_backward")
        for other, form in ((on_cpu, "chunked"), (with_gradients, "chunked"), (case, "parallel")):
            plan = plan_of(other, form)
            assert not plan.options
            assert plan.config.keys() <= {"chunk", "chunks", "weights", "states"}


def test_an_older_jaxlib_keeps_states_apart_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "MERGING", needing("99"))
    case = on_a_gpu("momentum", seq_len=1024)
    plan = plan_of(case, "chunked")
    assert (plan.config["states"], plan.options) == ("apart", {})
    assert plan.function.keywords["chosen"] == schedules.schedule(case)  # type: ignore[attr-defined]
    assert plan.config["states_apart_because"].endswith("is older than 99")
    assert "states_apart_because" not in plan_of(case.replace(mode="forward_backward"), "chunked").config


def test_options_reach_the_compiler() -> None:
    case = Case(spec=AttentionSpec(kind="linear"), heads=1, seq_len=8, head_dim=4)
    with pytest.raises(Exception, match="No such compile option: 'xla_of_nobody'"):
        kernel(partial(chunked.chunked, case=case), case, options={"xla_of_nobody": True})


def test_feature_map_and_its_derivative() -> None:
    x = np.array([-2e4, -100.0, -1.0, 0.0, 1.0, 200.0], np.float32)
    value, derivative = jax.vmap(jax.value_and_grad(arithmetic.feature))(x)
    np.testing.assert_allclose(value, phi(x), rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(derivative, slope(x), rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9, 0.999, 1 - 2.0**-40])
def test_weights_are_exact(beta: float) -> None:
    for n in (0, 1, 2, 64, 300):
        power = Fraction(beta) ** n
        assert float(weights.decay(beta, n)) == pytest.approx(float(power), rel=1e-13)
        assert float(weights.growth(beta, n)) == pytest.approx(float(1 - power), rel=1e-13)
    longest = 1 - Fraction(beta) ** 64
    assert weights.weight(beta, 3, 64) == pytest.approx(float((1 - Fraction(beta) ** 3) / longest), rel=1e-13)
    factor = float(2 * longest / (1 - Fraction(beta)))
    assert weights.output_factor(beta, 2.0, 64) == pytest.approx(factor, rel=1e-13)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (softmax.chunked, "softmax"),
        (chunked.chunked, "momentum"),
        (partial(chunked.chunked, chosen=schedules.Schedule(128, chunks=4)), "momentum"),
        (linear.recurrent, "momentum"),
    ],
)
def test_no_n_by_n_array(function: Any, kind: str) -> None:
    n = 2048
    case = Case(spec=AttentionSpec(kind=kind), batch=1, heads=1, seq_len=n, head_dim=16)  # type: ignore[arg-type]
    assert largest(function, case) <= n * 256
    if function is chunked.chunked:
        assert largest(linear.parallel, case) >= n * n


def largest(function: Any, case: Case) -> int:
    """Elements of the largest array in the compiled program."""
    x = jax.ShapeDtypeStruct((case.batch, case.heads, case.seq_len, case.head_dim), case.dtype)
    program = jax.jit(partial(function, case=case)).lower(x, x, x).compile()
    shapes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]+)\]", program.as_text())
    return max(int(np.prod([int(size) for size in shape.split(",")])) for shape in shapes)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (softmax.parallel, "softmax"),
        (softmax.chunked, "softmax"),
        (linear.parallel, "momentum"),
        (linear.recurrent, "momentum"),
        (chunked.chunked, "momentum"),
        (partial(chunked.chunked, chosen=schedules.Schedule(4, chunks=3)), "momentum"),
    ],
)
def test_jit_vmap_and_grad(function: Any, kind: str) -> None:
    case = Case(spec=AttentionSpec(kind=kind), batch=2, heads=2, seq_len=9, head_dim=4)  # type: ignore[arg-type]
    two = [make_inputs(case.replace(seed=seed)) for seed in (0, 1)]
    q, k, v = (np.stack([getattr(x, name) for x in two]) for name in "qkv")
    call = partial(function, case=case)

    def loss(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum(call(q, k, v) ** 2)

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1, 2))))(q, k, v)
    for number, inputs in enumerate(two):
        o = truth(case, inputs)["o"]
        with_do = Inputs(q=inputs.q, k=inputs.k, v=inputs.v, do=(2 * o).astype(np.float32))
        right = truth(case.replace(mode="forward_backward"), with_do)
        np.testing.assert_allclose(values[number], np.sum(o**2), rtol=1e-5)
        for found, name in zip(slopes, ("dq", "dk", "dv"), strict=True):
            np.testing.assert_allclose(found[number], right[name], rtol=1e-4, atol=1e-5)


def test_the_kernel_owns_its_inputs() -> None:
    """It neither shares the caller's memory nor gives its own away to the first call."""
    case = Case(spec=AttentionSpec(kind="softmax"), seq_len=256, head_dim=16, mode="forward_backward")
    inputs = make_inputs(case)
    kernel = BACKEND.build(case, "xla")
    assert kernel.layout == "bnhd"
    kernel.load(inputs)
    right = truth(case, inputs)
    inputs.q[:], inputs.k[:], inputs.v[:] = 0, 0, 0
    for _ in range(2):
        found = kernel.outputs(kernel())
        for name, array in right.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5)


def test_limits() -> None:
    def kind(form: str, **case: Any) -> str | None:
        limit = BACKEND.unsupported(Case(spec=AttentionSpec(kind="softmax"), **case), form)
        return None if limit is None else limit.kind

    half = {"dtype": "bfloat16", "device": "cuda"}
    assert kind("cudnn", **half) is None
    assert kind("cudnn", dtype="bfloat16") == "never"
    assert kind("cudnn", device="cuda") == "notyet"
    assert kind("cudnn", head_dim=4, **half) == "notyet"
    assert kind("cudnn", head_dim=256, **half) == "notimpl"
    assert kind("cudnn", value_dim=32, **half) == kind("cudnn", seq_len=1, **half) == "notyet"
    assert kind("xla", dtype="float16") == kind("xla", value_dim=32) == "notyet"
    assert kind("xla", dtype="float16", device="cuda") is None
    assert kind("recurrent") == "notimpl"
    for form in ("parallel", "chunked"):
        for dtype in ("float32", "bfloat16", "float16"):
            assert kind(form, dtype=dtype, value_dim=3) is None


def test_upstream_still_has_the_limits_declared_for_it() -> None:
    """When this fails, the limit can go."""
    x = np.zeros((1, 8, 2, 16), np.float16)
    attention = jax.jit(partial(jax.nn.dot_product_attention, implementation="xla"))
    with pytest.raises(ValueError, match="value shape should be"):
        attention.lower(x, x, x[..., :8])
    if jax.default_backend() == "cpu":
        with pytest.raises(ValueError, match="F16_F16_F32"):
            attention.lower(x, x, x)
