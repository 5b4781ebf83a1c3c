"""What starting the Triton kernels costs the host: each launch by Triton, and each by the kernel it found.

``python scripts/launch_overhead.py --out FOLDER`` prints, by shape and mode, the host's microseconds a call
until everything is queued, and with them on a machine with a GPU the wall clock, the device clock, and
whether both ways' results are bit for bit the same and right. Without a GPU the kernels are compiled for a
Hopper card and their launches do nothing (`tests/pretended_card.py`): what is left is Python and torch. What
either way no longer works out at every call, the constants, is in neither figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, wall_samples, warm_up  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

MODES = ("forward", "forward_backward")
SAMPLING = Sampling(least=30, limit_s=0.5)
WAYS = ("by_triton", "start")
"""Of `backends.triton.launch`: before, and after."""


def case_of(kind: str, shape: str, mode: str) -> Case:
    """In bfloat16, causal."""
    batch, heads, n, dim = (int(size) for size in shape.split(","))
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    sizes: dict[str, Any] = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
    return Case(spec=spec, dtype="bfloat16", device="cuda", mode=mode, **sizes)  # type: ignore[arg-type]


def kernel_of(case: Case, way: str, device: str, framework: Any) -> Any:
    """The case's kernel, whose launches go that way."""
    import torch

    package, plans = import_part("backends.triton"), import_part("backends.triton.plan")
    launch = getattr(import_part("backends.triton.launch"), way)
    processors = plans.CARD
    if device == "cuda":
        processors = torch.cuda.get_device_properties("cuda").multi_processor_count
    plan = plans.make_plan(case, device, processors)
    attention, gradients = package.kernels_of(plan)
    if case.mode == "forward":

        def function(q: Any, k: Any, v: Any) -> Any:
            return attention(plan, launch, q.contiguous(), k.contiguous(), v.contiguous())[0]
    else:
        differentiable = import_part("backends.triton.differentiable").differentiable
        function = differentiable(attention, gradients, plan, launch)
    # Where there is no card the tensors are the CPU's.
    return framework.kernel(function, case.replace(device=device))


def host_us(kernels: list[Any], calls: int) -> list[float]:
    """Microseconds of each kernel's call until it returns, which waits for nothing; in turns, the median. The
    device is idle before each call."""
    samples: list[list[float]] = [[] for _ in kernels]
    for _ in range(calls):
        for kernel, own in zip(kernels, samples, strict=True):
            began = time.perf_counter_ns()
            result = kernel()
            own.append((time.perf_counter_ns() - began) / 1e3)
            kernel.wait(result)
    return [median(own) for own in samples]


def measured(case: Case, device: str, calls: int, framework: Any) -> dict[str, Any]:
    """One row of the table."""
    inputs = make_inputs(case)
    kernels = [kernel_of(case, way, device, framework) for way in WAYS]
    results: list[Any] = []
    for kernel in kernels:
        kernel.load(inputs)
        for _ in range(3):  # the first finds and loads, the others are as all that follow
            result = kernel()
            kernel.wait(result)
        results.append(result)
    row: dict[str, Any] = {"case": case.id, "kind": case.spec.kind, "mode": case.mode}
    row |= {f"{way}_host_us": us for way, us in zip(WAYS, host_us(kernels, calls), strict=True)}
    if device == "cuda":
        row |= on_card(case, inputs, kernels, results, framework)
    return row


def on_card(
    case: Case, inputs: Inputs, kernels: list[Any], results: list[Any], framework: Any
) -> dict[str, Any]:
    """Whether both ways gave the same, and that is right; wall and device clock, the L2 flushed."""
    import torch

    row: dict[str, Any] = {
        "same": all(torch.equal(*pair) for pair in zip(*results, strict=True)),
    }
    judge = Judge(case, inputs)
    kernels[1].load(judge.inputs)
    agreement = judge.agreement("fused", kernels[1].outputs(kernels[1]()))
    row["errors"] = {name: found.relative for name, found in agreement.items()}
    row["right"] = all(found.passes for found in agreement.values())
    kernels[1].load(inputs)
    flush: Callable[[], None] = lambda: framework.flush_cache("cuda")  # noqa: E731
    for way, kernel in zip(WAYS, kernels, strict=True):
        warm_up(kernel, SAMPLING)
        row[f"{way}_wall_ms"] = wall_samples(kernel, flush, SAMPLING)[0].median
        row[f"{way}_device_ms"], row[f"{way}_span_ms"] = (
            found.median for found in device_samples(kernel, flush, SAMPLING)[:2]
        )
    return row


def line(row: dict[str, Any]) -> str:
    """That of the table: by Triton, then by the kernel kept."""
    words = [f"{row['case']}:"]
    for clock, unit, digits in (("host", "us", 0), ("wall", "ms", 3), ("device", "ms", 3), ("span", "ms", 3)):
        name = f"{clock}_{unit}"
        if f"start_{name}" in row:
            before, after = (f"{row[f'{way}_{name}']:.{digits}f}" for way in WAYS)
            words.append(f"{clock} {before} -> {after} {unit}")
    if "right" in row:
        words += ["same" if row["same"] else "NOT THE SAME", "right" if row["right"] else "WRONG"]
    return "  ".join(words)


def main() -> int:
    """A line a case; 1 where a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", default="momentum", help="several with ,")
    parser.add_argument("--shape", default="1,2,256,64;8,16,4096,64", help="batch,heads,seq_len,head_dim")
    parser.add_argument("--mode", default=",".join(MODES))
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--pretend", action="store_true", help="there is no card, even where there is one")
    parser.add_argument("--out", type=Path, help="a folder for launch_overhead.json")
    options = parser.parse_args()
    import torch

    import_part("backends.triton.launch").enter("cuda")
    device = "cuda" if torch.cuda.is_available() and not options.pretend else "cpu"
    if device == "cpu":
        from tests.pretended_card import PretendedCard

        PretendedCard(notes=False).activate()
    framework = load_framework("torch")
    framework.start(device, 1)
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'no card: launches do nothing'}")
    rows = []
    for shape in options.shape.split(";"):
        for kind in options.kind.split(","):
            for mode in options.mode.split(","):
                case = case_of(kind, shape, mode)
                rows.append(measured(case, device, options.calls, framework))
                print(line(rows[-1]), flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "launch_overhead.json").write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(not row.get("same", True) or not row.get("right", True) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
