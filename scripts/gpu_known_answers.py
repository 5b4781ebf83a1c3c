"""On a GPU: do the clocks and the memory reading give what is known by other means?

``python scripts/gpu_known_answers.py --json FILE``. Three questions, each in processes of their own:

- a single Triton kernel: the device clock (CUPTI) against CUDA events around the call, and against a replay
  of its CUDA graph, all after the same flush of the L2;
- the same cuDNN attention called from torch and from JAX, in the same layout: their device clocks;
- JAX's peak memory of a softmax that holds 1 GiB of scores: scores and weights, 0.5 GiB each, and the output.

Needs torch, Triton and JAX with their GPU parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case, load_backend  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, warm_up  # noqa: E402
from mtbench.measure.environment import gpus  # noqa: E402
from mtbench.results import Run  # noqa: E402

SAMPLES = 50
BUSY_CYCLES = 2_000_000
"""About a millisecond of a GPU's clock: longer than any launch here."""
SAMPLING = Sampling(least=SAMPLES, limit_s=0.5)


def a_case(kind: str, seq_len: int, batch: int = 8) -> Case:
    """Causal, 16 heads of 64, bfloat16."""
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    return Case(spec=spec, batch=batch, heads=16, seq_len=seq_len, dtype="bfloat16", device="cuda")


def by_events(call: Callable[[], Any]) -> float:
    """Milliseconds between CUDA events around a call. The GPU is kept busy, and the flush queued behind that
    and not waited for, so that the call is in the queue before the GPU comes to it: else the events would see
    the launch."""
    import torch

    from mtbench.frameworks.torch import _cache_flusher

    buffer, found = _cache_flusher(), []
    for _ in range(SAMPLES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(BUSY_CYCLES)
        buffer.amax()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return median(found)


def triton_kernels() -> list[dict[str, Any]]:
    """Device clock, events and graph replay of single kernels over 50 us, in ms."""
    import torch

    framework = load_framework("torch")
    framework.start("cuda", 4)
    rows = []
    for kind, seq_len in (("linear", 4096), ("momentum", 4096), ("linear", 8192), ("momentum", 8192)):
        case = a_case(kind, seq_len)
        kernel = load_backend("triton").build(case, "fused")
        kernel.load(make_inputs(case))
        warm_up(kernel, SAMPLING)
        device, _, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kernel()
        row = {
            "kernel": f"{kind} fused, batch 8, heads 16, seq_len {seq_len}, head_dim 64, bfloat16",
            "device_ms": device.median,
            "events_ms": by_events(kernel),
            "graph_ms": by_events(graph.replay),
        }
        row["events_over_device"] = row["events_ms"] / row["device_ms"]
        row["graph_over_device"] = row["graph_ms"] / row["device_ms"]
        rows.append(row)
    return rows


def cudnn(framework_name: str) -> list[dict[str, Any]]:
    """The device and span clocks of cuDNN's causal attention in layout bnhd, in ms."""
    framework = load_framework(framework_name)
    framework.start("cuda", 4)
    rows = []
    for batch, seq_len in ((8, 1024), (8, 2048), (8, 4096), (1, 16384)):
        case = a_case("softmax", seq_len, batch)
        if framework_name == "jax":
            kernel = load_backend("jax").build(case, "cudnn")
        else:
            kernel = framework.kernel(_torch_cudnn, case, layout="bnhd")
        kernel.load(make_inputs(case))
        warm_up(kernel, SAMPLING)
        device, span, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
        rows.append(
            {"batch": batch, "seq_len": seq_len, "device_ms": device.median, "span_ms": span.median}
            | {"work": _one_call(kernel)}
        )
    return rows


def _one_call(kernel: Any) -> list[float]:
    """Microseconds of each piece of GPU work of one call, in order."""
    from mtbench.measure.cupti import recorder

    with recorder().recording():
        kernel.wait(kernel())
        recorder().drain()
        kernel.wait(kernel())
        return [(end - start) / 1e3 for start, end in recorder().drain()]


def _torch_cudnn(q: Any, k: Any, v: Any) -> Any:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        o = torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True
        )
    return o.transpose(1, 2)


def jax_peak() -> dict[str, Any]:
    """Through the runner, as every figure is: the parallel form's 2 x 0.5 GiB of scores and its output."""
    heads, n, d = 8, 4096, 64
    known = 2 * heads * n * n * 4 + heads * n * d * 4
    words = f"--backend jax --form parallel --attention softmax --heads {heads} --seq-len {n} --head-dim {d}"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "mtbench",
                "run",
                *words.split(),
                "--device",
                "cuda",
                "--out",
                folder + "/r",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"error": done.stderr[-500:]}
        (row,) = Run.load(folder + "/r")
    peak = row.peak_memory_bytes
    return {
        "known_bytes": known,
        "measured_bytes": peak,
        "measured_over_known": None if peak is None else peak / known,
        "static_bytes": row.static_memory_bytes,
        "method": row.memory_method,
    }


PARTS: dict[str, Callable[[], Any]] = {
    "triton": triton_kernels,
    "cudnn-torch": lambda: cudnn("torch"),
    "cudnn-jax": lambda: cudnn("jax"),
    "jax-peak": jax_peak,
}


def main() -> None:
    """All parts, each in a process of its own: torch and JAX bring a cuDNN each."""
    parser = argparse.ArgumentParser(description="Known answers on a GPU.")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--part", choices=PARTS, help="one part alone, as JSON on stdout")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part]()))
        return
    figures: dict[str, Any] = {"gpus": gpus(), "samples": SAMPLES}
    for part in PARTS:
        done = subprocess.run(
            [sys.executable, __file__, "--part", part],
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.strip().splitlines()
        figures[part] = json.loads(lines[-1]) if done.returncode == 0 else {"error": done.stderr[-1500:]}
        print(part, json.dumps(figures[part], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
