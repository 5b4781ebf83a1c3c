"""The real Triton kernels on a card. Run them in a process without interpreted ones: ``pytest -m gpu``.

Most of the time is compiling, about two hundred kernels at a second or two each; Triton caches them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, load_backend
from mtbench.inputs import Array, Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.oracle import Rows, attention
from mtbench.registry import import_part

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.gpu, pytest.mark.triton]

TOLERANCE = {"float32": 5e-6, "float16": 1e-3, "bfloat16": 5e-3}
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
SIZES = [
    # batch, heads, seq_len, head_dim, value_dim
    (1, 1, 1, 1, 1), (2, 3, 2, 5, 3), (1, 2, 17, 5, 3), (1, 2, 63, 40, 72), (2, 2, 130, 40, 72),
    (1, 2, 65, 128, 33), (1, 3, 1000, 64, 64), (8, 16, 257, 64, 64), (1, 2, 1023, 128, 128),
    (1, 2, 300, 256, 256), (1, 2, 300, 200, 40), (1, 2, 300, 9, 130), (2, 2, 192, 32, 32),
    (1, 2, 130, 24, 16), (1, 2, 300, 32, 64), (1, 2, 300, 32, 128), (1, 2, 257, 64, 32),
]  # fmt: skip
LONG = [(1, 1, 5000, 64, 64), (2, 16, 9999, 64, 64), (1, 2, 70_001, 64, 64), (1, 1, 131_072, 128, 128)]
KINDS = [
    pytest.param(kind, causal, id=f"{kind}-{'causal' if causal else 'full'}")
    for kind in ("softmax", "linear", "momentum")
    for causal in (True, False)
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated is full of NaN: an element that no kernel writes, or reads too early, shows."""
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *of, plain=plain, **how: plain(*of, **how).fill_(float("nan"))
        )


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sequence is short enough for the parallel form."""
    monkeypatch.setattr(
        import_part("backends.triton.parallel_tiles"), "MOST_KEYS", dict.fromkeys((True, False), 0)
    )


def attend(case: Case, inputs: Inputs) -> Array:
    kernel = load_backend("triton").build(case, "fused")
    assert kernel.untimed is None
    kernel.load(inputs)
    result = kernel()
    kernel.wait(result)
    return kernel.outputs(result)["o"]


def check(case: Case, inputs: Inputs | None = None) -> None:
    inputs = make_inputs(case) if inputs is None else inputs
    pairs = case.batch * case.heads
    small = pairs <= 1000 and pairs * case.seq_len**2 <= 1 << 24
    rows = Rows.all(case) if small else Rows.sample(case)
    o = attend(case, inputs)
    assert np.isfinite(o.astype(np.float32)).all()
    truth = attention(case, inputs, rows).reshape(-1, case.value_dim)
    error = np.linalg.norm(rows.take(o) - truth) / np.linalg.norm(truth)
    assert error < TOLERANCE[case.dtype], f"{case.id}: {error:.2e}"


def check_gradients(case: Case) -> None:
    """By the rule that judges a run."""
    case = case.replace(mode="forward_backward")
    judge = Judge(case, make_inputs(case))
    kernel = load_backend("triton").build(case, "fused")
    kernel.load(judge.inputs)
    result = kernel()
    kernel.wait(result)
    outputs = kernel.outputs(result)
    assert judge.contract_problem(outputs) is None
    failed = {name: a for name, a in judge.agreement("fused", outputs).items() if not a.passes}
    assert not failed, (case.id, failed)


def a_case(kind: Any, causal: bool, size: tuple[int, ...], dtype: Any, **spec: float) -> Case:
    batch, heads, n, head_dim, value_dim = size
    return Case(
        spec=AttentionSpec(kind=kind, causal=causal, **{"beta": 0.9, "gamma": 0.6} | spec),  # type: ignore[arg-type]
        batch=batch,
        heads=heads,
        seq_len=n,
        head_dim=head_dim,
        value_dim=value_dim,
        dtype=dtype,
        device="cuda",
    )


@DTYPES
@pytest.mark.parametrize("kind", ["softmax", "linear", "momentum"])
@pytest.mark.parametrize("head_dim", [9, 16, 23, 24, 50, 56, 100, 104])
def test_every_pair_of_tiles(head_dim: int, kind: str, dtype: str) -> None:
    """Each pair of padded dims is another kernel, and a compiler can be wrong about a single one."""
    wrong = []
    for value_dim in (16, 24, 56, 104) if head_dim % 8 == 0 else (9, 23, 50, 100):
        for causal in (True, False):
            case = Case(
                spec=AttentionSpec(kind=kind, causal=causal),  # type: ignore[arg-type]
                batch=2,
                heads=2,
                seq_len=200,
                head_dim=head_dim,
                value_dim=value_dim,
                dtype=dtype,  # type: ignore[arg-type]
                device="cuda",
            )
            if load_backend("triton").unsupported(case, "fused"):
                continue
            inputs = make_inputs(case)
            o, ref = attend(case, inputs).astype(np.float64), attention(case, inputs)
            error = float(np.linalg.norm(o - ref) / np.linalg.norm(ref))
            if not error <= TOLERANCE[dtype]:
                wrong.append((value_dim, causal, error))
    assert not wrong


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_any_size(kind: Any, causal: bool, dtype: Any) -> None:
    for size in SIZES:
        check(a_case(kind, causal, size, dtype))


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_gradients(kind: Any, causal: bool, dtype: Any) -> None:
    """The shapes of SIZES, some in segments, with whole chunks and without, and some drawn by seed."""
    rng = np.random.default_rng(5)
    drawn = [
        (int(rng.integers(1, 3)), 2, int(rng.integers(1, 600)), *(int(x) for x in rng.integers(1, 257, 2)))
        for _ in range(6)
    ]
    for size in (*SIZES, (1, 2, 5001, 64, 64), (1, 2, 4096, 64, 64), *drawn):
        check_gradients(a_case(kind, causal, size, dtype))
    check_gradients(a_case(kind, causal, (1, 2, 1000, 64, 64), dtype, beta=0.1))  # dies out within a segment


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_padding_and_keys_of_another_length(kind: Any, causal: bool, dtype: Any) -> None:
    for seq_len in (5000,) if causal else (1, 300, 5000):
        for lengths in (None, (1, 5000, 1777)):
            spec = AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6)
            sizes: Any = {"batch": 3, "heads": 2, "seq_len": seq_len, "kv_len": 5000, "head_dim": 64}
            check_gradients(Case(spec=spec, lengths=lengths, dtype=dtype, device="cuda", **sizes))


SHORT = [
    # seq_len, kv_len, lengths
    (1, 1, None), (10, 10, (1, 10, 7)), (33, 33, None), (64, 64, (1, 64, 33)), (80, 80, None),
    (128, 128, (65, 1, 128)), (64, 1, None), (10, 65, (65, 1, 64)), (300, 20, None), (300, 100, (3, 100, 50)),
    (5000, 40, (40, 1, 39)),
]  # fmt: skip
DIMS = [
    ("bfloat16", 64, 64), ("bfloat16", 32, 128), ("bfloat16", 139, 139), ("float16", 139, 20),
    ("float32", 17, 139),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "head_dim", "value_dim"), DIMS)
@pytest.mark.parametrize(("kind", "causal"), KINDS[2:])
def test_the_parallel_form_of_short_sequences(
    kind: Any, causal: bool, dtype: Any, head_dim: int, value_dim: int
) -> None:
    """Each pair of tiles is another kernel. Every call has to give the same bits, which a race would not."""
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.6)
    for n, m, lengths in SHORT:
        if causal and n != m:
            continue
        sizes: Any = {"batch": 3, "heads": 2, "seq_len": n, "kv_len": m, "lengths": lengths}
        sizes |= {"head_dim": head_dim, "value_dim": value_dim, "mode": "forward_backward"}
        case = Case(spec=spec, dtype=dtype, device="cuda", **sizes)
        check_gradients(case)
        kernel = load_backend("triton").build(case, "fused")
        kernel.load(make_inputs(case))
        first, *others = (kernel.outputs(kernel()) for _ in range(4))
        for again in others:
            for name, array in first.items():
                np.testing.assert_array_equal(array, again[name], err_msg=f"{name} of {case.id}")


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS[2:])
@pytest.mark.usefixtures("chunked")
def test_the_chunked_kernels_at_short_lengths(kind: Any, causal: bool, dtype: Any) -> None:
    """Which the parallel form takes otherwise, but a sequence over several cards does not."""
    for size in SIZES:
        if size[2] <= 128:
            check_gradients(a_case(kind, causal, size, dtype))


EIGHT = [
    # batch, heads, seq_len, head_dim, value_dim, lengths
    pytest.param((1, 2, 17, 128, 128, None), id="few-positions"),
    pytest.param((1, 2, 63, 72, 40, None), id="less-than-a-chunk"),
    pytest.param((8, 16, 256, 128, 128, None), id="whole-chunks"),
    pytest.param((8, 16, 257, 128, 128, None), id="a-ragged-end"),
    pytest.param((1, 3, 4096, 128, 128, None), id="whole-segments"),
    pytest.param((1, 2, 5001, 104, 136, None), id="ragged-segments"),
    pytest.param((3, 2, 3001, 128, 128, (1, 3001, 1777)), id="lengths"),
]


@pytest.mark.parametrize(
    ("kind", "beta"),
    [("linear", 0.9), ("momentum", 0.0), ("momentum", 0.3), ("momentum", 0.5), ("momentum", 0.9)],
)
@pytest.mark.parametrize("size", EIGHT)
@pytest.mark.usefixtures("chunked")
def test_the_sum_of_the_keys_in_8_columns(size: Any, kind: Any, beta: float) -> None:
    """The one kernel that multiplies by mma and by wgmma: such a one was wrong on a card before. What it
    makes of z is judged by itself, and every call has to give the same bits, which a race would not."""
    launch, plans = (import_part(f"backends.triton.{name}") for name in ("launch", "plan"))
    launch.enter("cuda")
    *sizes, lengths = size
    case = a_case(kind, True, tuple(sizes), "bfloat16", beta=beta).replace(lengths=lengths)
    inputs = make_inputs(case)
    assert plans.make_plan(case, "cuda").tiles.groups == 8
    check(case, inputs)
    check_gradients(case)

    attend = import_part("backends.triton.scan").attention
    q, k, v = (
        torch.from_numpy(x.astype(np.float32)).to("cuda", torch.bfloat16)
        for x in (inputs.q, inputs.k, inputs.v)
    )
    plan = plans.make_plan(case.replace(mode="forward_backward"), "cuda")
    phi_q, phi_k = (torch.nn.functional.elu(x.double()) + 1 for x in (q, k))
    if lengths is not None:
        real = torch.arange(case.kv_len, device="cuda") < plan.lengths[:, None]
        phi_k *= real[:, None, :, None]
    wanted = (phi_q * phi_k.cumsum(2)).sum(3) + case.spec.eps
    calls = [attend(plan, launch.start, q, k, v, keep=True) for _ in range(5)]
    o, den = calls[0][0], calls[0][1][0]
    # Row by row: a wrong sum of few keys is nothing beside the norm of all rows.
    assert float(((den - wanted).abs() / wanted).max()) < 0.005
    for again, (den_again, *_) in calls[1:]:
        assert torch.equal(again, o)
        assert torch.equal(den_again, den)


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS[2:])
def test_long_sequences_in_segments(kind: Any, causal: bool, dtype: Any) -> None:
    for size in LONG:
        check(a_case(kind, causal, size, dtype, beta=0.999))


@DTYPES
@pytest.mark.parametrize("causal", [True, False])
def test_any_momentum(causal: bool, dtype: Any) -> None:
    for beta, gamma in ((0.0, 1.0), (0.1, 0.6), (0.6, 2.0), (0.999, 2.0), (1 - 1e-6, 1.0)):
        check(a_case("momentum", causal, (1, 2, 3000, 64, 64), dtype, beta=beta, gamma=gamma))


@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_large_inputs_do_not_overflow_float16(kind: Any, causal: bool) -> None:
    case = a_case(kind, causal, (1, 1, 1000, 64, 64), "float16")
    inputs = make_inputs(case)
    factor = np.float16(30 if kind == "softmax" else 1000)
    check(case, Inputs(q=inputs.q * factor, k=inputs.k * factor, v=inputs.v))


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS[2:])
def test_very_negative_queries_and_keys(kind: Any, causal: bool, dtype: Any) -> None:
    case = a_case(kind, causal, (1, 1, 700, 64, 64), dtype)
    inputs = make_inputs(case)
    shift = np.where(np.arange(700) % 3 == 1, -25, 0)[:, None]
    check(
        case,
        Inputs(
            q=(inputs.q + shift).astype(inputs.q.dtype),
            k=(inputs.k + shift[::-1]).astype(inputs.k.dtype),
            v=inputs.v,
        ),
    )


@DTYPES
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_the_build_compiles_everything(kind: Any, causal: bool, dtype: Any) -> None:
    """What the first call still had to compile would be timed as if it were work."""
    names = ["softmax", "softmax_gradients"]
    if kind != "softmax":
        names = ["states", "scan", "full", "gradients", "parallel", "parallel_gradients"]
    modules = [import_part(f"backends.triton.{name}") for name in names]
    kernels = [k for m in modules for k in vars(m).values() if hasattr(k, "device_caches")]

    def count() -> int:
        return sum(len(cache[0]) for kernel in kernels for cache in kernel.device_caches.values())

    for n in (4500, 50):
        case = a_case(kind, causal, (1, 1, n, 48, 24), dtype).replace(mode="forward_backward")
        kernel = load_backend("triton").build(case, "fused")
        built = count()
        assert built > 0
        kernel.load(make_inputs(case))
        kernel.wait(kernel())
        assert count() == built


def loaded(case: Case, inputs: Inputs) -> tuple[Any, list[Any]]:
    """A kernel, and q, k, v and do on the card."""
    tensors = importlib.import_module("mtbench.frameworks.torch")
    qkv = [tensors.to_tensor(x, "cuda").requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    return load_backend("triton").build(case, "fused"), [*qkv, tensors.to_tensor(inputs.do, "cuda")]


@DTYPES
@pytest.mark.parametrize("n", [300, 50])
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_tensors_that_begin_anywhere(kind: Any, causal: bool, n: int, dtype: Any) -> None:
    """Pieces of flat buffers, and short ones for the parallel form. A kernel compiled for tensors that begin
    at multiples of 16 bytes faults there; and the launches of those that do go on with it."""
    case = a_case(kind, causal, (1, 2, n, 64, 64), dtype).replace(mode="forward_backward")
    kernel, tensors = loaded(case, make_inputs(case))
    wanted = called(kernel, tensors)
    for moved in ((0,), (1, 2), (3,), (0, 1, 2, 3)):
        own = [off(x) if index in moved else x for index, x in enumerate(tensors)]
        assert [x.data_ptr() % 16 != 0 for x in own] == [index in moved for index in range(4)]
        for found, right in zip(called(kernel, own), wanted, strict=True):
            assert float((found - right).detach().norm() / right.detach().norm()) < TOLERANCE[dtype]
    for found, right in zip(called(kernel, tensors), wanted, strict=True):
        assert torch.equal(found, right)


def called(kernel: Any, tensors: list[Any]) -> list[Any]:
    """o, dq, dk and dv in float32."""
    kernel.give(*tensors)
    result = kernel()
    kernel.wait(result)
    return [x.float() for x in result]


def off(x: Any) -> Any:
    """A copy that begins one element past a multiple of 16 bytes."""
    flat = torch.zeros(x.numel() + 1, dtype=x.dtype, device=x.device)[1:]
    return flat.view(x.shape).copy_(x.detach()).requires_grad_(x.requires_grad)


@pytest.mark.parametrize("n", [700, 50])
@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_a_cuda_graph_holds_a_call_with_its_backward(kind: Any, causal: bool, n: int) -> None:
    case = a_case(kind, causal, (1, 2, n, 64, 64), "bfloat16").replace(mode="forward_backward")
    kernel, tensors = loaded(case, make_inputs(case))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    kernel.give(*tensors)
    with torch.cuda.stream(stream):
        for _ in range(2):
            kernel()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        held = kernel()
    with torch.no_grad():
        for x in tensors:
            x.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    fresh = [x.detach().clone().requires_grad_(x.requires_grad) for x in tensors]  # of this stream
    for replayed, direct in zip(held, called(kernel, fresh), strict=True):
        assert torch.equal(replayed.float(), direct)


@pytest.mark.parametrize(("kind", "causal"), KINDS)
def test_more_pairs_than_a_grid_axis_has(kind: Any, causal: bool) -> None:
    """70,000 (batch, head) pairs: the second and third axis of a grid end at 65,535."""
    check(a_case(kind, causal, (7000, 10, 3, 16, 16), "float32"))


@pytest.mark.alone
@pytest.mark.parametrize(("kind", "causal"), KINDS[2:])
def test_offsets_past_32_bits(kind: Any, causal: bool) -> None:
    """2.7e9 elements a tensor, 4.2 million positions: the last pair agrees with itself computed alone."""
    needed, n = 40 << 30, (1 << 22) + 5
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free GPU memory")
    launch = import_part("backends.triton.launch")
    launch.enter("cuda")
    plan = import_part("backends.triton.plan")
    attend = importlib.import_module(f"backends.triton.{'scan' if causal else 'full'}").attention
    case = a_case(kind, causal, (1, 5, n, 128, 128), "bfloat16")
    torch.manual_seed(0)
    qkv = [torch.randn(1, 5, n, 128, dtype=torch.bfloat16, device="cuda") for _ in range(3)]
    o, _ = attend(plan.make_plan(case, "cuda"), launch.start, *qkv)
    assert bool(torch.isfinite(o[0, 4]).all())
    alone = a_case(kind, causal, (1, 1, n, 128, 128), "bfloat16")
    last, _ = attend(plan.make_plan(alone, "cuda"), launch.start, *(x[:, 4:].contiguous() for x in qkv))
    found, wanted = o[0, 4].float(), last[0, 0].float()
    assert float((found - wanted).norm() / wanted.norm()) < 1e-2
