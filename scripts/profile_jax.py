"""The kernels that XLA makes of JAX's chunked form, by JAX's own profiler.

``python scripts/profile_jax.py --kind momentum --shape 8,16,4096,64 --hlo FILE`` on a machine with a GPU
prints what each kernel of a call takes, in microseconds, and its launches a call; ``--hlo`` keeps the
compiled program, which says what a kernel's name stands for.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

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
    import jax
    from jax.profiler import ProfileData

    batch, heads, n, dim = (int(x) for x in options.shape.split(","))
    sizes = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
    case = Case(spec=AttentionSpec(kind=options.kind), dtype="bfloat16", device="cuda", **sizes)
    inputs = make_inputs(case)
    arrays = [jax.device_put(x) for x in (inputs.q, inputs.k, inputs.v)]
    function = functools.partial(import_part("backends.jax.chunked").chunked, case=case)

    def with_gradients(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        o, pull = jax.vjp(function, q, k, v)
        return o, *pull(v)  # any array of o's shape will do

    program = jax.jit(function if options.mode == "forward" else with_gradients)
    compiled = program.lower(*arrays).compile()
    if options.hlo:
        options.hlo.write_text(compiled.as_text())
    for _ in range(WARM):
        jax.block_until_ready(compiled(*arrays))
    times: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(compiled(*arrays))
        (trace,) = Path(folder).rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(trace)).planes:
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
