"""Every backend on a card, at odd and at large sizes, and the clocks that time it there."""

from __future__ import annotations

import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import make_inputs
from mtbench.registry import load_backend
from mtbench.spec import ATTENTIONS, DTYPES, MODES
from tests.backends.test_conformance import MARKS, judge_row

pytestmark = pytest.mark.gpu

SIZES = {
    "torch-eager": [(1, 2, 1, 4, 3), (2, 2, 131, 17, 9), (1, 2, 9001, 64, 64)],
    "torch-compile": [(1, 2, 300, 64, 64)],
    "triton": [(1, 2, 1, 4, 3), (2, 2, 131, 17, 9), (2, 3, 1000, 128, 40), (1, 2, 20_011, 64, 64)],
    "jax": [(2, 2, 131, 17, 9), (2, 2, 1024, 64, 64)],
    "jax-pallas": [(1, 2, 1, 4, 3), (2, 2, 131, 17, 9), (2, 3, 1000, 128, 40), (1, 2, 20_011, 64, 64)],
}
PARALLEL_AT_MOST = 4096
RECURRENT_AT_MOST = 1024


def rows() -> list[object]:
    return [
        pytest.param(name, form, kind, dtype, id=f"{name}-{form}-{kind}-{dtype}", marks=MARKS[name])
        for name in SIZES
        for kind in ATTENTIONS
        for form in load_backend(name).forms(kind)
        for dtype in (("bfloat16",) if name == "torch-compile" else DTYPES)
    ]


@pytest.mark.parametrize(("name", "form", "kind", "dtype"), rows())
def test_agrees_with_the_oracle(name: str, form: str, kind: str, dtype: str) -> None:
    backend = load_backend(name)
    most = {"parallel": PARALLEL_AT_MOST, "recurrent": RECURRENT_AT_MOST}.get(form, 1 << 20)
    for batch, heads, n, d, dv in SIZES[name]:
        for causal in (True, False):
            for mode in MODES if n <= PARALLEL_AT_MOST else MODES[:1]:
                case = Case(
                    spec=AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.7),  # type: ignore[arg-type]
                    batch=batch,
                    heads=heads,
                    seq_len=n,
                    head_dim=d,
                    value_dim=dv,
                    dtype=dtype,  # type: ignore[arg-type]
                    device="cuda",
                    mode=mode,
                )
                if n <= most and backend.unsupported(case, form) is None:
                    judge_row(name, form, case)


@pytest.mark.torch
@pytest.mark.alone
def test_the_device_clock_agrees_with_cuda_events() -> None:
    import torch

    from mtbench.frameworks import load_framework
    from mtbench.measure.clocks import Sampling, device_samples

    case = Case(
        spec=AttentionSpec(kind="softmax"),
        batch=4,
        heads=16,
        seq_len=16384,
        dtype="bfloat16",
        device="cuda",
    )
    framework = load_framework("torch")
    kernel = load_backend("torch-eager").build(case, "sdpa")
    kernel.load(make_inputs(case))

    def flush() -> None:
        framework.flush_cache("cuda")

    device, span, _ = device_samples(kernel, flush, Sampling(limit_s=0.5))
    events = []
    for _ in range(30):
        flush()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        kernel()
        end.record()
        torch.cuda.synchronize()
        events.append(start.elapsed_time(end))
    by_events = sorted(events)[15]
    # Events also see the launch, some 40 us: one kernel of 5 ms hardly notices.
    assert device.median == pytest.approx(by_events, rel=0.03)
    assert device.median <= span.median * 1.0001


@pytest.mark.torch
def test_the_peak_of_a_known_tensor() -> None:
    import torch

    from mtbench.frameworks import load_framework

    framework = load_framework("torch")
    case = Case(spec=AttentionSpec(kind="softmax"), device="cuda", seq_len=64)
    kernel = framework.kernel(lambda q, k, v: torch.ones(64 << 20, device="cuda"), case)
    kernel.load(make_inputs(case))
    peak = framework.peak_memory(kernel, "cuda")
    assert peak.bytes == 256 << 20
