"""The Pallas kernels: their numbers in Pallas's interpreter, and that every one of them lowers for a card."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax.experimental import pallas as pl  # noqa: E402

from backends import by_distance  # noqa: E402
from backends.pallas import BACKEND, tiles  # noqa: E402
from backends.pallas.attention import attention_of  # noqa: E402
from backends.pallas.plan import LEAST_FACTOR, Plan, make_plan  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.spec import ATTENTIONS, DTYPES, AttentionSpec, Case  # noqa: E402
from tests.backends.test_jax import check, truth  # noqa: E402

pytestmark = pytest.mark.jax

BACK = {"float32": 3e-6, "bfloat16": 1.5e-2, "float16": 2e-3}
"""Relative L2 of gradients, about twice what these sizes show."""


def a_case(kind: str = "momentum", **more: Any) -> Case:
    spec = {name: more.pop(name) for name in ("causal", "beta", "gamma", "scale") if name in more}
    more = {"heads": 1, "seq_len": 67, "head_dim": 16, **more}
    return Case(spec=AttentionSpec(kind=kind, **spec), **more)  # type: ignore[arg-type]


def run(case: Case, inputs: Inputs, plan: Plan | None = None) -> dict[str, Any]:
    attention = attention_of(plan or make_plan(case))
    if inputs.do is None:
        return {"o": np.asarray(jax.jit(attention)(inputs.q, inputs.k, inputs.v))}

    def program(q: Any, k: Any, v: Any, do: Any) -> tuple[Any, ...]:
        o, back = jax.vjp(attention, q, k, v)
        return (o, *back(do))

    found = jax.jit(program)(inputs.q, inputs.k, inputs.v, inputs.do)
    return {name: np.asarray(x) for name, x in zip(("o", "dq", "dk", "dv"), found, strict=True)}


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize(("number", "n"), list(enumerate((1, 16, 129, 300))))
def test_lengths_and_dims(kind: str, number: int, n: int) -> None:
    """A length of one, whole blocks and odd ones, and in segments; beta, scale and dtype go round."""
    head_dim, value_dim = ((1, 1), (16, 64), (33, 130), (80, 8))[number]
    case = a_case(
        kind,
        seq_len=n,
        head_dim=head_dim,
        value_dim=value_dim,
        causal=number != 2,
        beta=(0.0, 0.1, 0.999, 0.9)[number],
        gamma=2.0,
        scale=0.3 if number % 2 else None,
        dtype=DTYPES[number % 3],
    )
    inputs = make_inputs(case)
    check(case, run(case, inputs), inputs)


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize(("beta", "causal"), [(0.6, True), (1 - 2.0**-12, True), (0.6, False)])
def test_every_cut_gives_the_same(beta: float, causal: bool, back: bool) -> None:
    """Segments the last of which is short, and more of them than are put together at once; with weights that
    die out within a segment, and that do not."""
    mode = "forward_backward" if back else "forward"
    case = a_case(seq_len=600 if back else 1200, beta=beta, causal=causal, value_dim=40, mode=mode)
    inputs, segments = make_inputs(case), 3 if back else 10
    plan = make_plan(case, segments=segments)
    assert plan.segments == segments
    assert case.seq_len % plan.segment
    check(case, run(case, inputs, plan), inputs)


@pytest.mark.parametrize(("kind", "causal"), [("softmax", True), ("linear", True), ("momentum", False)])
def test_dims_that_programs_share(kind: str, causal: bool) -> None:
    """Past 64 and 128 columns dk and dv have a launch each, and the states are cut in blocks."""
    case = a_case(kind, causal=causal, head_dim=130, value_dim=70, seq_len=50, mode="forward_backward")
    inputs = make_inputs(case)
    check(case, run(case, inputs), inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_momentum_in_segments(dtype: str) -> None:
    case = a_case(seq_len=300, head_dim=24, value_dim=72, heads=2, dtype=dtype, mode="forward_backward")
    inputs = make_inputs(case)
    check(case, run(case, inputs), inputs, BACK[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("forgets", [True, False])
def test_the_momentum_at_which_a_chunk_begins_to_forget(forgets: bool, dtype: str) -> None:
    """At the largest beta at which P is of the last chunk alone, and just above it, in two segments."""
    sizes: Any = {"seq_len": 200, "head_dim": 24, "value_dim": 72, "dtype": dtype, "mode": "forward_backward"}
    plan = make_plan(a_case(**sizes))
    border = by_distance.HALF_UNIT[plan.numbers.dot] ** (1 / (plan.tiles.rows + 2))
    case = a_case(beta=border * (0.9999 if forgets else 1.0001), **sizes)
    plan, inputs = make_plan(case, segments=2), make_inputs(case)
    assert plan.forgets(plan.tiles.rows) == forgets
    check(case, run(case, inputs, plan), inputs, BACK[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_momentum_down_to_which_its_weights_are_factored(dtype: str) -> None:
    """At the least beta at which u(i-j) is made of two factors, in two segments: one head's scores are of the
    usual size, the other's of 1e-21, and neither may leave float32's range between the factors."""
    sizes: Any = {"seq_len": 200, "head_dim": 24, "dtype": dtype, "mode": "forward_backward"}
    rows = make_plan(a_case(**sizes)).tiles.rows
    border = LEAST_FACTOR ** (1 / (rows + 1))
    below = make_plan(a_case(beta=border * 0.9999, **sizes))
    assert below.forgets(rows)
    assert not below.factored(rows)
    case = a_case(beta=border * 1.0001, heads=2, **sizes)
    plan, drawn = make_plan(case, segments=2), make_inputs(case)
    assert plan.factored(rows)
    shift = np.float32([0, -25])[:, None, None]
    low = {name: (getattr(drawn, name) + shift).astype(drawn.v.dtype) for name in "qk"}
    found = run(case, Inputs(**low, v=drawn.v, do=drawn.do), plan)
    for head in (0, 1):
        part = np.s_[:, head : head + 1]
        alone = Inputs(q=low["q"][part], k=low["k"][part], v=drawn.v[part])
        own = {name: x[part] for name, x in found.items()}
        one = case.replace(heads=1)
        check(one.replace(mode="forward"), {"o": own["o"]}, alone)
        check(one, own, replace(alone, do=drawn.do[part]), BACK[dtype])


def test_float16_keeps_its_range() -> None:
    """phi(-20) is 2e-9, and a sum of 300 phi(300) 9e4."""
    case = a_case(seq_len=300, dtype="float16", beta=0.999, gamma=2.0)
    drawn = make_inputs(case)
    for shift in (-20, 300):
        k = (drawn.k + np.float16(shift)).astype(np.float16)
        inputs = Inputs(q=drawn.q, k=k, v=drawn.v)
        check(case, run(case, inputs), inputs)


def test_it_is_a_function_that_jax_transforms() -> None:
    """`vmap` over sequences and `grad` of a loss, beside the equations."""
    case = a_case(seq_len=9, head_dim=4, heads=2)
    two = [make_inputs(case.replace(seed=seed)) for seed in (0, 1)]
    attention = attention_of(make_plan(case))

    def loss(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum(attention(q, k, v) ** 2)

    arrays = [np.stack([getattr(x, name) for x in two]) for name in "qkv"]
    found = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1, 2))))(*arrays)
    for number, inputs in enumerate(two):
        o = truth(case, inputs)["o"]
        pulled = Inputs(q=inputs.q, k=inputs.k, v=inputs.v, do=(2 * o).astype(np.float32))
        right = truth(case.replace(mode="forward_backward"), pulled)
        for array, name in zip(found, ("dq", "dk", "dv"), strict=True):
            np.testing.assert_allclose(array[number], right[name], rtol=1e-4, atol=1e-5)


def lowered(case: Case, plan: Plan | None = None) -> list[str]:
    """The names of the Triton kernels that a case becomes on a card, without one."""
    try:
        jax.devices("cuda")
    except RuntimeError:
        if jax.__version_info__ >= (0, 11):
            pytest.skip("from 0.11 on JAX lowers for the card that it finds alone")
    attention = attention_of(plan or make_plan(case))
    lead = (case.batch, case.heads, case.seq_len)
    q, v = (jax.ShapeDtypeStruct((*lead, dim), case.dtype) for dim in (case.head_dim, case.value_dim))

    def program(q: Any, k: Any, v: Any, do: Any) -> Any:
        return jax.vjp(attention, q, k, v)[1](do) if case.mode == "forward_backward" else attention(q, k, v)

    target = "__gpu$xla.gpu.triton"
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(target)]
    exported = jax.export.export(jax.jit(program), platforms=["cuda"], disabled_checks=unchecked)(q, q, v, v)
    calls = [line for line in exported.mlir_module().splitlines() if f"@{target}" in line]
    return [name for line in calls for name in re.findall(r' name = "(\w+)", num_stages', line)]


KERNELS = {
    ("softmax", True): ["softmax", "softmax_query_gradients", "softmax_key_value_gradients"],
    ("linear", True): [
        *("states", "combine", "scan", "query_gradients", "states", "combine", "key_value_gradients"),
    ],
    ("linear", False): ["states", "apply", "query_gradients", "states", "key_value_gradients"],
}


@pytest.mark.parametrize(("kind", "causal", "dtype"), list(product(ATTENTIONS, (True, False), DTYPES)))
def test_every_kernel_lowers_for_a_card(kind: str, causal: bool, dtype: str) -> None:
    """Whole chunks of bare dims, and a length and dims that want masks and padding."""
    expected = KERNELS["softmax" if kind == "softmax" else "linear", kind == "softmax" or causal]
    for n, head_dim, value_dim in ((512, 64, 64), (301, 40, 24)):
        case = a_case(
            kind,
            causal=causal,
            seq_len=n,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            device="cuda",
            mode="forward_backward",
        )
        found = lowered(case)
        # float32's states are cut in blocks sooner, and dk and dv then have a launch each.
        assert found == expected + expected[-1:] * (len(found) - len(expected))
        assert len(found) - len(expected) in ((0, 1) if dtype == "float32" and kind != "softmax" else (0,))


def test_the_forward_alone_keeps_nothing() -> None:
    case = a_case(heads=200, seq_len=256, head_dim=64, dtype="bfloat16", device="cuda")
    assert lowered(case) == ["scan"]
    assert lowered(case.replace(spec=AttentionSpec(kind="softmax"))) == ["softmax"]


@pytest.mark.parametrize("kind", ["softmax", "momentum"])
def test_offsets_past_32_bits(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last element of 2^31 has a number that 32 bits hold. Of one head more it has not: then every offset
    into such a tensor has 64."""
    monkeypatch.setattr(pl, "pallas_call", partial(pl.pallas_call, debug=True))  # prints Triton's code
    sizes: Any = {"seq_len": 2**16, "head_dim": 128, "dtype": "bfloat16", "mode": "forward_backward"}
    for heads, bits in ((256, "i32"), (257, "i64")):
        case = a_case(kind, heads=heads, device="cuda", **sizes)
        names = lowered(case, None if kind == "softmax" else make_plan(case, segments=2))
        code = capsys.readouterr().out
        offsets = re.findall(r"tt\.addptr .*ptr<bf16>>, tensor<[0-9x]+x(\w+)>", code)
        assert set(offsets) == {bits}
        assert len(offsets) >= 3 * (len(names) - names.count("combine"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_tiles_fit_every_dim(kind: str, dtype: str) -> None:
    """Powers of two, which divide the padded dims, and a segment that is whole chunks of every kernel."""
    for head_dim, value_dim in product((1, 17, 64, 100, 128, 256), repeat=2):
        case = a_case(kind, head_dim=head_dim, value_dim=value_dim, dtype=dtype)
        padded = tiles.padded(case)
        assert all(size >= max(16, dim) for size, dim in zip(padded, (head_dim, value_dim), strict=True))
        found = [
            tiles.softmax_tiles(case),
            *(tiles.softmax_gradient_tiles(case, by_keys=x) for x in (True, False)),
        ]
        if kind != "softmax":
            by_head, *rest = tiles.key_value_tiles(case)
            found = [tiles.scan_tiles(case), tiles.query_tiles(case), by_head[0], *(x[0] for x in rest)]
        for chosen in found:
            sizes = (chosen.rows, chosen.head_dim, chosen.value_dim, *([chosen.keys] if chosen.keys else []))
            assert all(size & (size - 1) == 0 for size in sizes)
            assert chosen.blocks in (1, padded[0] // chosen.head_dim, padded[1] // chosen.value_dim)
            assert 128 % chosen.rows == 0


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.999, 1 - 2.0**-40])
def test_weights_by_distance(beta: float) -> None:
    """Beside sums of powers, and with as many positions as count."""
    for n in (1, 2, 70):
        powers = sum(beta**i for i in range(n))
        assert by_distance.u(beta, n - 1) == pytest.approx((1 - beta) * powers, rel=1e-6)
        assert by_distance.carry(beta, n) == pytest.approx(beta * (1 - beta) * powers, rel=1e-6)
        assert by_distance.keep(beta, n) == pytest.approx(beta**n, rel=1e-6)
    assert by_distance.u(beta, -1) == by_distance.keep(beta, -1) == 0
    assert by_distance.keep(beta, 0) == 1
    assert by_distance.u(beta, by_distance.counting(beta)) == 1


def test_rows_of_the_interpreter_are_untimed() -> None:
    kernel = BACKEND.build(a_case(seq_len=4), "fused")
    assert kernel.untimed == "interpreted"
    assert kernel.config["segments"] == 1


def test_limits() -> None:
    def kind(**case: Any) -> str | None:
        limit = BACKEND.unsupported(a_case(**case), "fused")
        return None if limit is None else limit.kind

    assert kind(head_dim=256, dtype="float16") is None
    assert kind(head_dim=257) == kind(value_dim=257) == "notimpl"
