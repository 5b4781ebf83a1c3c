"""How long a token takes by Triton's decoding kernel, beside a copy of the state's bytes.

``python scripts/time_decode.py --json FILE`` on a machine with a GPU. The device clock, the L2 flushed before
every call; the floor reads the state and writes it: a copy of as many bytes in the same run. Each step is
captured in a CUDA graph as well, and its replay timed. The first step's output is compared with the float64
oracle's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, warm_up  # noqa: E402
from mtbench.oracle import attention  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

SHAPES = "1,16,64,64;64,16,64,64;512,16,64,64;64,16,128,128"
PROMPT = 100
SAMPLING = Sampling(least=30, limit_s=0.3)


def timed(framework: Any, case: Case, call: Callable[[], Any]) -> float:
    """Device milliseconds of a call that takes no inputs."""
    kernel = framework.kernel(lambda q, k, v: call(), case)
    kernel.load(make_inputs(case.replace(seq_len=1)))
    warm_up(kernel, SAMPLING)
    device, _, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
    return device.median


def measured(kind: str, shape: str, framework: Any) -> dict[str, Any]:
    """One row of the table."""
    import torch

    decode = import_part("backends.triton.decode")
    batch, heads, head_dim, value_dim = (int(x) for x in shape.split(","))
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    sizes: dict[str, Any] = {"batch": batch, "heads": heads, "head_dim": head_dim, "value_dim": value_dim}
    case = Case(spec=spec, seq_len=PROMPT, dtype="bfloat16", device="cuda", **sizes)
    inputs = make_inputs(case)
    q, k, v = (
        torch.from_numpy(x.astype(np.float32)).to("cuda", torch.bfloat16)
        for x in (inputs.q, inputs.k, inputs.v)
    )
    state = decode.state_after(spec, k[:, :, :-1], v[:, :, :-1])
    token = [x[:, :, -1].contiguous() for x in (q, k, v)]
    found = decode.step(spec, *token, state).double().cpu().numpy()
    one = case.replace(batch=1)
    truth = attention(one, type(inputs)(q=inputs.q[:1], k=inputs.k[:1], v=inputs.v[:1]))[:, :, -1]
    size = sum(x.nbytes for x in state if x is not None)
    source, target = (torch.ones(size // 4, device="cuda") for _ in range(2))
    floor = timed(framework, case, lambda: target.copy_(source))
    step = timed(framework, case, lambda: decode.step(spec, *token, state))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decode.step(spec, *token, state)
    replayed = timed(framework, case, graph.replay)
    return {
        "kind": kind,
        **sizes,
        "state_bytes": size,
        "error": float(np.linalg.norm(found[:1] - truth) / np.linalg.norm(truth)),
        "floor_ms": floor,
        "device_ms": step,
        "replayed_ms": replayed,
        "over_floor": step / floor,
    }


def main() -> None:
    """Print a line a shape and kind."""
    parser = argparse.ArgumentParser(description="Decoding, a token at a time.")
    parser.add_argument("--shape", default=SHAPES, help="batch,heads,head_dim,value_dim; several with ;")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import_part("backends.triton.launch").enter("cuda")
    framework = load_framework("torch")
    framework.start("cuda", 4)
    rows = []
    for shape in options.shape.split(";"):
        for kind in ("linear", "momentum"):
            rows.append(row := measured(kind, shape, framework))
            print(
                f"{kind} {shape}: {row['device_ms']:.4f} ms, {row['over_floor']:.2f}x the floor of "
                f"{row['floor_ms']:.4f}, replayed {row['replayed_ms']:.4f}, error {row['error']:.1e}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
