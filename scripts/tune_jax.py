"""JAX's chunked form in many schedules, each checked and timed.

``python scripts/tune_jax.py --shape "8,16,4096,64;1,16,16384,64" --kind linear,momentum --json FILE`` on a
machine with a GPU: for each schedule, the output (and the gradients) against those of the float64 oracle on a
sample of rows, and the device clock, the L2 flushed, beside a copy of the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, warm_up  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

SAMPLING = Sampling(least=20, least_s=0.05, limit_s=0.15, warmup_s=0.01)


def tuned(case: Case, options: argparse.Namespace, framework: Any) -> list[dict[str, Any]]:
    """Every schedule for a case: its errors and its times."""
    chunked = import_part("backends.jax.chunked")
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    copy = framework.kernel(lambda q, k, v: q + 0, case.replace(mode="forward"))
    copy.load(inputs)
    floor = 2 * device_ms(copy, framework)  # q read once and written once, where the floor has four tensors
    floor *= 3 if case.mode == "forward_backward" else 1
    print(f"{case.id}: floor {floor:.4f} ms", flush=True)
    found = []
    lists = ([int(x) for x in getattr(options, name).split(",")] for name in ("chunk", "chunks"))
    for chunk, chunks in itertools.product(*lists):
        own = chunked.schedule(case)
        chunk = chunk or own.chunk
        chosen = chunked.Schedule(chunk, min(chunks or own.chunks, case.seq_len // chunk))
        row: dict[str, Any] = {"chunk": chosen.chunk, "chunks": chosen.chunks}
        try:
            kernel = framework.kernel(functools.partial(chunked.chunked, case=case, chosen=chosen), case)
            kernel.load(judge.inputs)
            began = time.perf_counter()
            result = kernel()
            kernel.wait(result)
            row["first_s"] = time.perf_counter() - began
            agreement = judge.agreement("chunked", kernel.outputs(result))
            row["errors"] = {name: a.relative for name, a in agreement.items()}
            row["right"] = all(a.passes for a in agreement.values())
            kernel.load(inputs)
            row["device_ms"] = device_ms(kernel, framework)
            row["over_floor"] = row["device_ms"] / floor
        except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
            row["error"] = f"{error!r:.200}"
        found.append(row)
        print(
            f"{row.get('over_floor', 0):6.2f}x {row.get('device_ms', 0):8.4f} ms chunk {chosen.chunk} "
            f"chunks {chosen.chunks} first {row.get('first_s', 0):.1f} s "
            f"{'' if row.get('right') else row.get('error', 'WRONG')}",
            flush=True,
        )
    return [{"case": case.id, "floor_ms": floor, "rows": found}]


def device_ms(kernel: Any, framework: Any) -> float:
    """The median of the device clock."""
    warm_up(kernel, SAMPLING)
    device, _, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
    return float(device.median)


def main() -> None:
    """Check and time."""
    parser = argparse.ArgumentParser(description="Schedules of JAX's chunked form, tried.")
    parser.add_argument(
        "--shape", default="8,16,4096,64", help="batch,heads,seq_len,head_dim; several with ;"
    )
    parser.add_argument("--kind", default="linear,momentum")
    parser.add_argument("--mode", default="forward", choices=["forward", "forward_backward"])
    parser.add_argument("--chunk", default="0", help="positions of a chunk; 0: the case's own")
    parser.add_argument("--chunks", default="0", help="chunks of a step; 0: the case's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    framework = load_framework("jax")
    framework.start("cuda", 4)
    found = []
    for shape, kind in itertools.product(options.shape.split(";"), options.kind.split(",")):
        batch, heads, n, dim = (int(x) for x in shape.split(","))
        sizes = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
        case = Case(
            spec=AttentionSpec(kind=kind), dtype="bfloat16", device="cuda", mode=options.mode, **sizes
        )
        found += tuned(case, options, framework)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
