"""The kernels that XLA makes of JAX's chunked form, by JAX's own profiler.

``python scripts/profile_jax.py --kind momentum --shape 8,16,4096,64 --hlo FILE`` on a machine with a GPU
prints what each kernel of a call takes, in microseconds, and its launches a call, of the program that the
backend compiles; ``--hlo`` keeps it, which says what a kernel's name stands for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.registry import load_backend  # noqa: E402

CALLS = 10
WARM = 3


def main() -> None:
    """Compile, warm up, profile and print."""
    parser = argparse.ArgumentParser(description="XLA's kernels of JAX's chunked form.")
    parser.add_argument("--kind", default="momentum", choices=["linear", "momentum"])
    parser.add_argument("--shape", default="8,16,4096,64", help="batch,heads,seq_len,head_dim")
    parser.add_argument("--mode", default="forward", choices=["forward", "forward_backward"])
    parser.add_argument("--hlo", type=Path)
    options = parser.parse_args()
    load_framework("jax").start("cuda", 4)
    import jax.profiler

    batch, heads, n, dim = (int(x) for x in options.shape.split(","))
    sizes = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
    spec = AttentionSpec(kind=options.kind)
    case = Case(spec=spec, dtype="bfloat16", device="cuda", mode=options.mode, **sizes)
    kernel: Any = load_backend("jax").build(case, "chunked")
    kernel.load(make_inputs(case))
    if options.hlo:
        options.hlo.write_text(kernel.compiled.as_text())
    for _ in range(WARM):
        kernel.wait(kernel())
    times: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                kernel.wait(kernel())
        (trace,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
            for line in plane.lines if "GPU" in plane.name else ():
                for event in line.events if "Stream" in line.name else ():
                    times[event.name] += event.duration_ns
                    launches[event.name] += 1
    print(f"== {options.kind} ({options.shape}) {options.mode}")
    for name, ns in times.most_common():
        print(f"{ns / CALLS / 1e3:9.1f} us  x{launches[name] / CALLS:.0f}  {name}")
    print(f"{sum(times.values()) / CALLS / 1e3:9.1f} us total")


if __name__ == "__main__":
    main()
