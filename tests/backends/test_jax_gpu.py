"""The JAX backend on a card: cuDNN, the schedule taken there, and float32 that is float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from backends.jax import BACKEND, chunked, linear, schedules, softmax  # noqa: E402
from mtbench.frameworks import MEMORY_WORKERS, load_framework  # noqa: E402
from mtbench.frameworks.jax import kernel  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.spec import AttentionSpec, Case  # noqa: E402
from tests.backends.test_jax import EVERY_FORM, check, phi, run, sum_of_powers  # noqa: E402
from tests.processes import in_a_fresh_process  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.gpu]

DTYPES = ("float32", "bfloat16", "float16")
TOLERANCE = {"float32": 5e-6, "bfloat16": 1.5e-2, "float16": 2e-3}


def on_a_card(kind: str, form: str, **sizes: Any) -> tuple[Case, Inputs]:
    causal = sizes.pop("causal", True)
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=2.0)  # type: ignore[arg-type]
    case = Case(spec=spec, device="cuda", **sizes)
    assert BACKEND.unsupported(case, form) is None
    return case, make_inputs(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "form"), EVERY_FORM)
def test_forms(kind: str, form: str, dtype: str) -> None:
    """o, dq, dk and dv at an odd size: more than one chunk of 128, but less than one block of 512."""
    for causal in (True, False) if kind == "momentum" else (True,):
        case, inputs = on_a_card(
            kind,
            form,
            causal=causal,
            heads=3,
            seq_len=301,
            head_dim=40,
            value_dim=40 if form == "xla" else 72,
            dtype=dtype,
            mode="forward_backward",
        )
        check(case, run(case, form, inputs), inputs, TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["linear", "momentum"])
@pytest.mark.parametrize(("seq_len", "dim"), [(64, 64), (129, 128), (301, 64), (1000, 128), (2049, 64)])
def test_states_inside_the_products(kind: str, seq_len: int, dim: int) -> None:
    """As a program of the backend's has them where XLA merges them."""
    sizes = {"batch": 2, "heads": 3, "seq_len": seq_len, "head_dim": dim}
    case, inputs = on_a_card(kind, "chunked", dtype="bfloat16", **sizes)
    built = BACKEND.build(case, "chunked")
    assert built.config["states"] == ("apart" if schedules.MERGING.missing() else "inside")
    check(case, run(case, "chunked", inputs), inputs, TOLERANCE["bfloat16"])


@pytest.fixture
def merging() -> None:
    """For tests that give XLA the option. No mark, which would stand before that of a missing GPU."""
    if why := schedules.MERGING.missing():
        pytest.skip(why)


@pytest.mark.usefixtures("merging")
@pytest.mark.parametrize("kind", ["linear", "momentum"])
@pytest.mark.parametrize("chosen", [(128, 3), (64, 2), (32, 1)])
def test_states_inside_at_dims_that_no_case_has_them_at(kind: str, chosen: tuple[int, int]) -> None:
    sizes = {"seq_len": 301, "head_dim": 40, "value_dim": 72}
    case, inputs = on_a_card(kind, "chunked", heads=3, dtype="bfloat16", **sizes)
    inside = schedules.Schedule(*chosen, schedules.schedule(case).weights, "inside")
    options = schedules.compiler_options(inside, "cuda")
    built = kernel(partial(chunked.chunked, case=case, chosen=inside), case, options=options)
    built.load(inputs)
    check(case, dict(built.outputs(built())), inputs, TOLERANCE["bfloat16"])


@pytest.mark.usefixtures("merging")
@pytest.mark.parametrize("kind", ["linear", "momentum"])
def test_the_option_merges_kernels(kind: str) -> None:
    case, _ = on_a_card(kind, "chunked", batch=2, heads=16, seq_len=4096, head_dim=64, dtype="bfloat16")
    inside = schedules.schedule(case, merging=True)

    def kernels(options: dict[str, bool | str]) -> int:
        built: Any = kernel(partial(chunked.chunked, case=case, chosen=inside), case, options=options)
        text = built.compiled.as_text()
        return sum(
            " fusion(" in line or " custom-call(" in line for line in text[text.index("ENTRY ") :].split("\n")
        )

    assert kernels(schedules.compiler_options(inside, "cuda")) < kernels({})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("seq_len", "head_dim"), [(2, 8), (62, 16), (63, 16), (130, 64), (257, 128), (1024, 64)]
)
def test_cudnn(seq_len: int, head_dim: int, causal: bool, dtype: str) -> None:
    case, inputs = on_a_card(
        "softmax",
        "cudnn",
        causal=causal,
        batch=2,
        heads=3,
        seq_len=seq_len,
        head_dim=head_dim,
        dtype=dtype,
        mode="forward_backward" if seq_len % 2 == 0 else "forward",
    )
    check(case, run(case, "cudnn", inputs), inputs, TOLERANCE[dtype])


def test_cudnn_takes_a_scale() -> None:
    spec = AttentionSpec(kind="softmax", scale=0.3)
    case = Case(spec=spec, heads=2, seq_len=97, head_dim=32, dtype="bfloat16", device="cuda")
    inputs = make_inputs(case)
    check(case, run(case, "cudnn", inputs), inputs)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "seq_len"), [("float32", 64, 64), ("bfloat16", 12, 64), ("bfloat16", 64, 63)]
)
def test_cudnn_still_has_the_limits_declared_for_it(dtype: str, head_dim: int, seq_len: int) -> None:
    x = jax.ShapeDtypeStruct((1, seq_len, 2, head_dim), dtype)

    def backward(q: Any, k: Any, v: Any) -> Any:
        o, pull_back = jax.vjp(partial(jax.nn.dot_product_attention, implementation="cudnn"), q, k, v)
        return pull_back(o)

    with pytest.raises(NotImplementedError):
        jax.jit(backward).lower(x, x, x)


@pytest.mark.parametrize(("kind", "form"), [("softmax", "chunked"), ("momentum", "chunked")])
def test_gradients_over_many_blocks(kind: str, form: str) -> None:
    case, inputs = on_a_card(
        kind, form, heads=1, seq_len=2049, head_dim=64, dtype="bfloat16", mode="forward_backward"
    )
    check(case, run(case, form, inputs), inputs, TOLERANCE["bfloat16"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_sequence(dtype: str) -> None:
    """Rows at the ends and beside chunk borders, each from eq 13 by itself."""
    n = 100_001
    case, inputs = on_a_card("momentum", "chunked", heads=2, seq_len=n, head_dim=64, dtype=dtype)
    o = run(case, "chunked", inputs)["o"][0, 1].astype(np.float64)
    q, k, v = (np.asarray(x[0, 1], np.float64) for x in (inputs.q, inputs.k, inputs.v))
    for row in (0, 1, 127, 128, 129, 4096, 65_535, 65_536, n - 1):
        scores = phi(k[: row + 1]) @ phi(q[row])
        weight = case.spec.gamma * sum_of_powers(case.spec.beta, np.arange(row + 1, 0, -1))
        right = (scores * weight) @ v[: row + 1] / (scores.sum() + case.spec.eps)
        assert np.linalg.norm(o[row] - right) <= TOLERANCE[dtype] * np.linalg.norm(right), row


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (softmax.parallel, "softmax"),
        (softmax.chunked, "softmax"),
        (linear.parallel, "momentum"),
        (linear.recurrent, "momentum"),
        (chunked.chunked, "momentum"),
        (partial(chunked.chunked, chosen=schedules.Schedule(64, chunks=1)), "momentum"),
    ],
)
def test_float32_is_not_tf32(function: Any, kind: str) -> None:
    """In a process that left jax_default_matmul_precision as it was."""
    case, inputs = on_a_card(kind, "chunked", heads=2, seq_len=200, head_dim=64)
    with jax.default_matmul_precision("tensorfloat32"):
        o = np.asarray(jax.jit(partial(function, case=case))(inputs.q, inputs.k, inputs.v))
    check(case, {"o": o}, inputs, TOLERANCE["float32"])


def test_the_xla_form_is_not_tf32() -> None:
    case, inputs = on_a_card("softmax", "xla", heads=2, seq_len=200, head_dim=64)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (inputs.q, inputs.k, inputs.v))
    with jax.default_matmul_precision("tensorfloat32"):
        o = np.asarray(jax.jit(partial(softmax.xla, case=case))(q, k, v))
    check(case, {"o": o.transpose(0, 2, 1, 3)}, inputs, TOLERANCE["float32"])


def test_the_adapter_keeps_to_its_device() -> None:
    framework = load_framework("jax")
    assert framework.environment("cuda")["gpu"]
    framework.flush_cache("cuda")
    case, inputs = on_a_card("momentum", "chunked", heads=2, seq_len=130, head_dim=16)
    for device, platform in (("cuda", "gpu"), ("cpu", "cpu")):
        kernel = BACKEND.build(case.replace(device=device), "chunked")
        kernel.load(inputs)
        result = kernel()
        kernel.wait(result)
        assert {d.platform for d in result[0].devices()} == {platform}
        check(case, dict(kernel.outputs(result)), inputs, TOLERANCE["float32"])


def peak_of_a_chunked_form() -> None:
    case, inputs = on_a_card("momentum", "chunked", heads=2, seq_len=130, head_dim=16)
    kernel = BACKEND.build(case, "chunked")
    kernel.load(inputs)
    kernel.wait(kernel())
    assert load_framework("jax").peak_memory(kernel, "cuda").bytes


def test_a_memory_worker_reads_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MEMORY_WORKERS["jax", "cuda"].environment.items():
        monkeypatch.setenv(name, value)
    in_a_fresh_process(peak_of_a_chunked_form)
