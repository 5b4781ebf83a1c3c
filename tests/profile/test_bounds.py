"""The verdict's rules: on figures, and on work that is made to be exactly one of the five."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtbench.floor import floor_bytes
from mtbench.measure.statistics import Samples
from mtbench.profile.assembling import assemble
from mtbench.profile.bounds import COMPUTE, HOST, LATENCY, LAUNCH, MEMORY, VERDICTS, Facts, bound_of
from mtbench.profile.parts import Findings
from mtbench.profile.record import Machine, Work
from mtbench.results import Measurement
from mtbench.spec import AttentionSpec, Case
from mtbench.work import operations
from tests.processes import in_a_fresh_process

MACHINE = Machine(
    measured="",
    copy_bytes_per_s=2e12,
    matmul_flop_per_s={"bfloat16": 6e14, "float32": 5e13},
    call_ms=0.02,
    operator_ms=0.004,
)
NOTHING = {"flop": 0.0, "bytes": 0.0}


def work(flop: float, bytes_: float) -> Work:
    return Work(flop=flop, bytes=bytes_, flop_from="", bytes_from="")


def facts(wall: float, busy: float, launches: float = 1, device: str = "cuda", **more: Any) -> Facts:
    return Facts(device=device, dtype="bfloat16", wall_ms=wall, busy_ms=busy, launches=launches, **more)


@pytest.mark.parametrize(
    ("seen", "does", "verdict"),
    [
        (facts(10.0, 1.0), work(0, 0), HOST),
        (
            facts(10.0, 5.1),
            work(0, 0),
            LATENCY,
        ),  # more than half: the host may be slow, and does not bound it
        (facts(0.09, 0.02), work(0, 1e9), LAUNCH),  # idle 70 us, no more than 4 x 20
        (facts(0.11, 0.02), work(0, 1e9), HOST),
        (facts(8.0, 2.0, launches=1000), work(0, 0), LAUNCH),
        (facts(40.0, 2.0, launches=1000), work(0, 0), HOST),  # idle 38 ms, over 4 x 4.0
        (facts(1.1, 1.0), work(1e11, 1.1e9), MEMORY),
        (facts(1.1, 1.0), work(4e11, 1e9), COMPUTE),
        (facts(1.1, 1.0), work(4e11, 1.9e9), MEMORY),  # the larger of the two
        (facts(1.1, 1.0), work(1e11, 9e8), LATENCY),
        (facts(1.1, 1.0, tensor_share=0.7), work(1e11, 9e8), COMPUTE),
        # On a CPU launching is work, and no time is idle for it.
        (facts(1.0, 1.0, launches=200, device="cpu"), work(0, 1e6), LAUNCH),
        (facts(1.0, 1.0, launches=60, device="cpu"), work(0, 1e6), LATENCY),
        (facts(1.0, 0.3, device="cpu"), work(0, 1e6), HOST),
    ],
)
def test_the_rules(seen: Facts, does: Work, verdict: str) -> None:
    bound = bound_of(seen, does, MACHINE)
    assert bound.verdict == verdict
    assert bound.because
    assert bound.change


def test_without_ceilings_nothing_is_called_memory_bound() -> None:
    machine = Machine(measured="", copy_bytes_per_s=None, matmul_flop_per_s={}, call_ms=0.02, operator_ms=0.0)
    bound = bound_of(facts(1.1, 1.0), work(1e15, 1e15), machine)
    assert bound.verdict == LATENCY
    assert "an unknown part" in bound.because
    assert bound.shares["memory"] is None


def test_float16_is_held_against_the_products_of_bfloat16() -> None:
    seen = Facts(device="cuda", dtype="float16", wall_ms=1.1, busy_ms=1.0, launches=1)
    assert bound_of(seen, work(4e11, 1), MACHINE).verdict == COMPUTE


@pytest.mark.parametrize(
    ("form", "verdict", "products"), [("fused", COMPUTE, 2.0), ("fused-tf32", MEMORY, None)]
)
def test_a_form_in_tf32_is_not_held_against_the_products_of_float32(
    form: str, verdict: str, products: float | None, tmp_path: Path
) -> None:
    """Its products may be eight times as fast, and no rate of them was measured."""
    case = Case(spec=AttentionSpec(kind="softmax"), batch=8, heads=16, seq_len=1024, device="cuda")
    busy_ms = operations(case) / 5e13 * 1e3 / 2  # half of what float32's products would take
    row = Measurement(
        case=case,
        backend="triton",
        form=form,
        status="ok",
        wall_ms=Samples([1.1 * busy_ms]),
        device_ms=Samples([busy_ms]),
    )
    slow = replace(MACHINE, copy_bytes_per_s=floor_bytes(case) / (0.9 * busy_ms / 1e3))
    told = {"framework": "torch", "folder": tmp_path, "environment": {}}
    profile = assemble(row, Findings(), slow, None, **told)
    assert profile.bound.verdict == verdict
    assert profile.bound.shares["products"] == (products if products is None else pytest.approx(products))
    assert (profile.least_ms is None) == (products is None)


def judged(kind: str, device: str) -> str:
    """Work that is exactly that, by eager torch, through what a profile is made of."""
    from tempfile import TemporaryDirectory

    import torch

    from mtbench.frameworks import load_framework
    from mtbench.frameworks.profiling import load_profiler
    from mtbench.inputs import make_inputs
    from mtbench.measure.clocks import Sampling, device_samples, wall_samples, warm_up
    from mtbench.profile.machine import measured
    from mtbench.profile.trace import read_trace, traced
    from mtbench.profile.worker import processor_times

    framework, profiler = load_framework("torch"), load_profiler("torch")
    assert profiler is not None
    framework.start(device, 1)
    large = torch.randn(64 << 20 if device == "cuda" else 16 << 20, device=device)
    copied = torch.empty_like(large)
    square = torch.randn(
        4096 if device == "cuda" else 1024, 4096 if device == "cuda" else 1024, device=device
    )
    one = torch.zeros(1, device=device)
    tall = torch.randn(1 << 14, 32, device=device)

    def copy(q: Any, k: Any, v: Any) -> Any:
        return copied.copy_(large)

    def product(q: Any, k: Any, v: Any) -> Any:
        return square @ square

    def launches(q: Any, k: Any, v: Any) -> Any:
        for _ in range(1000):
            one.add_(1)
        return one

    def sleep(q: Any, k: Any, v: Any) -> Any:
        time.sleep(0.02)
        return one + 1

    def chain(q: Any, k: Any, v: Any) -> Any:
        return torch.logcumsumexp(tall, dim=0)

    functions: dict[str, Callable[..., Any]] = {"copy": copy, "product": product}
    functions |= {"launches": launches, "sleep": sleep, "chain": chain}
    case = Case(spec=AttentionSpec(kind="softmax"), heads=1, seq_len=4, head_dim=4, device=device)  # type: ignore[arg-type]
    kernel = framework.kernel(functions[kind], case)
    kernel.load(make_inputs(case))
    # Long enough that neighbours leave a quiet moment in it: ceilings are of the fastest sample, too.
    sampling = Sampling(least=10, least_s=1.0, limit_s=2.0)
    warm_up(kernel, sampling)
    wall = min(wall_samples(kernel, lambda: None, sampling)[0].values)
    if device == "cuda":
        busy = min(device_samples(kernel, lambda: None, sampling)[0].values)
    else:
        whole, worked = processor_times(kernel, 0.3)
        busy = wall * min(1.0, worked / whole)
    counted = {**NOTHING, **profiler.work(kernel)}
    with TemporaryDirectory() as folder:
        profiler.trace(kernel, device, 3, lambda: None, Path(folder) / "t.json.gz")
        seen = traced(read_trace(Path(folder) / "t.json.gz"), device=device)
    told = Facts(device=device, dtype="float32", wall_ms=wall, busy_ms=busy, launches=seen.launches)
    machine = measured(framework, device, "float32")  # type: ignore[arg-type]
    return bound_of(told, work(counted["flop"], counted["bytes"]), machine).verdict


MADE = [
    ("copy", MEMORY),
    ("product", COMPUTE),
    ("launches", LAUNCH),
    ("sleep", HOST),
    # One launch, in which every sum waits for the one before: a thread of a GPU goes down one of 32 columns.
    ("chain", LATENCY),
]


def check_all(device: str) -> None:
    found = [(kind, judged(kind, device)) for kind, _ in MADE]
    assert found == MADE, found


@pytest.mark.torch
@pytest.mark.alone
def test_work_made_to_be_exactly_that() -> None:
    in_a_fresh_process(check_all, "cpu")


@pytest.mark.torch
@pytest.mark.gpu
@pytest.mark.alone
def test_work_made_to_be_exactly_that_on_a_gpu() -> None:
    in_a_fresh_process(check_all, "cuda")


def check_that_an_attention_operator_has_no_products() -> None:
    import torch

    from mtbench.frameworks import load_framework
    from mtbench.frameworks.profiling import load_profiler
    from mtbench.inputs import make_inputs

    framework, profiler = load_framework("torch"), load_profiler("torch")
    assert profiler is not None
    framework.start("cpu", 1)
    held = torch.empty(1, 1, 128, 64, dtype=torch.bfloat16, device="meta")

    def call(q: Any, k: Any, v: Any) -> Any:
        torch.ops.aten._scaled_dot_product_cudnn_attention(held, held, held, None, False, 0.0, True)
        torch.ops.aten._scaled_dot_product_flash_attention(held, held, held, 0.0, True)
        return q @ k.mT

    case = Case(spec=AttentionSpec(kind="softmax"), heads=1, seq_len=4, head_dim=8)
    kernel = framework.kernel(call, case)
    kernel.load(make_inputs(case))
    assert profiler.work(kernel)["flop"] == 2 * 4 * 4 * 8 * case.batch


@pytest.mark.torch
def test_torch_s_count_of_the_whole_square_is_not_believed() -> None:
    """It knows no mask: a causal call would have twice its products."""
    in_a_fresh_process(check_that_an_attention_operator_has_no_products)


def test_every_verdict_has_a_way_out() -> None:
    from mtbench.profile.bounds import CHANGE

    assert set(CHANGE) == set(VERDICTS)
