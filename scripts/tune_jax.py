"""JAX's chunked form in many schedules, each checked and timed.

``python scripts/tune_jax.py --out FOLDER --limit-s 110`` on a machine with a GPU: for each case its own
schedule, then those that differ from it in the chunk or in where scores meet their weights: the output (and
the gradients) against those of the float64 oracle on a sample of rows, and the device clock, the L2 flushed,
beside a copy of the same bytes. All cases' own schedules come first, and FOLDER/schedules.json is written
after each, so that a limit leaves out what matters least. ``--device cpu`` tries it, by the wall clock.
``--mode forward --chunk "" --weights ""`` has each case's own alone, and ``--states apart`` beside it the one
without `schedules.compiler_options`, which a schedule with states inside has whatever jaxlib is there.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, wall_samples, warm_up  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from scripts.tune_triton import the_case  # noqa: E402

SAMPLING = Sampling(least=20, least_s=0.05, limit_s=0.15, warmup_s=0.01)
SHAPES = "8,16,4096,64;1,16,16384,64;8,16,4096,128"


def schedules(case: Case, options: argparse.Namespace) -> list[Any]:
    """The case's own schedule, each that has another chunk or other weights, and all these by `states`."""
    own = import_part("backends.jax.schedules").schedule(case, merging=True)
    found = [own]
    for chunk in options.chunk:
        length = own.chunk * own.chunks
        found.append(own._replace(chunk=min(chunk, case.seq_len), chunks=max(1, length // chunk)))
    found += [own._replace(weights=weights) for weights in options.weights]
    found += [one._replace(states=states) for states in options.states for one in found]
    return list(dict.fromkeys(found))


def device_ms(kernel: Any, framework: Any) -> float:
    """The median of the device clock."""
    warm_up(kernel, SAMPLING)
    found = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
    return float(found[0].median)


class Bench:
    """What the schedules of all cases share."""

    def __init__(self, device: str) -> None:
        self.framework = load_framework("jax")
        self.framework.start(device, 4)
        self.device = device
        self._inputs = functools.cache(make_inputs)
        self._judge = functools.cache(lambda case: Judge(case, self._inputs(case)))

    def _flush(self) -> None:
        self.framework.flush_cache(self.device)

    def milliseconds(self, kernel: Any) -> float:
        """The median of the device clock, or on a CPU of the wall clock."""
        if self.device == "cuda":
            return device_ms(kernel, self.framework)
        warm_up(kernel, SAMPLING)
        return float(wall_samples(kernel, self._flush, SAMPLING)[0].median)

    def floor_ms(self, case: Case) -> float:
        """What a copy takes for q, k, v and o, and in forward_backward for three times these."""
        copy = self.framework.kernel(lambda q, k, v: q + 0, case.replace(mode="forward"))
        copy.load(self._inputs(case))
        # q read once and written once, where the floor has four tensors.
        return 2 * self.milliseconds(copy) * (3 if case.mode == "forward_backward" else 1)

    def row(self, case: Case, chosen: Any) -> dict[str, Any]:
        """A schedule's errors and its time."""
        chunked = import_part("backends.jax.chunked")
        jax_kernel = import_part("mtbench.frameworks.jax").kernel
        judge: Judge = self._judge(case)
        row: dict[str, Any] = chosen._asdict()
        try:
            began = time.perf_counter()
            call = functools.partial(chunked.chunked, case=case, chosen=chosen)
            merging = import_part("backends.jax.schedules").compiler_options(chosen, self.device)
            kernel = jax_kernel(call, case, options=merging)
            row["compiled_s"] = time.perf_counter() - began
            kernel.load(judge.inputs)
            result = kernel()
            kernel.wait(result)
            agreement = judge.agreement("chunked", kernel.outputs(result))
            row["errors"] = {name: a.relative for name, a in agreement.items()}
            row["right"] = all(a.passes for a in agreement.values())
            kernel.load(self._inputs(case))
            row["ms"] = self.milliseconds(kernel)
        except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
            row["error"] = f"{error!r:.200}"
        return row


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """By mode first: the forward of every shape is tried before a backward is."""
    for mode, shape, kind in itertools.product(options.mode, options.shape.split(";"), options.kind):
        yield the_case(shape, kind, mode, options.device)


def main() -> None:
    """Check and time."""
    parser = argparse.ArgumentParser(description="Schedules of JAX's chunked form, tried.")
    several: Any = lambda text: [x for x in text.split(",") if x]  # noqa: E731
    numbers: Any = lambda text: [int(x) for x in several(text)]  # noqa: E731
    parser.add_argument("--shape", default=SHAPES, help="batch,heads,seq_len,head_dim; several with ;")
    parser.add_argument("--kind", type=several, default=["linear", "momentum"])
    parser.add_argument("--mode", type=several, default=["forward", "forward_backward"])
    parser.add_argument("--chunk", type=numbers, default=[64, 128], help="positions, besides its own")
    parser.add_argument("--weights", type=several, default=["apart", "inside", "rounded"])
    parser.add_argument("--states", type=several, default=[], help="apart, inside: each with all of these")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="start none after so long")
    parser.add_argument("--out", type=Path, required=True, help="the folder for schedules.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began, bench = time.perf_counter(), Bench(options.device)
    print(json.dumps(bench.framework.environment(options.device)), flush=True)
    found: dict[str, dict[str, Any]] = {}
    every = [(number, case) for case in cases(options) for number in range(len(schedules(case, options)))]
    for number, case in sorted(every, key=lambda one: one[0] > 0):
        chosen = schedules(case, options)[number]
        late = time.perf_counter() - began > options.limit_s
        if not late and case.id not in found:
            found[case.id] = {"case": case.id, "floor_ms": bench.floor_ms(case), "rows": []}
        if late:
            print(f"not tried, past {options.limit_s:g} s: {case.id} {chosen}", flush=True)
            continue
        row = bench.row(case, chosen)
        found[case.id]["rows"].append(row)
        (options.out / "schedules.json").write_text(json.dumps(list(found.values()), indent=1) + "\n")
        over = row["ms"] / found[case.id]["floor_ms"] if "ms" in row else 0
        errors = " ".join(f"{name} {error:.1e}" for name, error in row.get("errors", {}).items())
        print(
            f"{over:6.2f}x {row.get('ms', 0):8.4f} ms  chunk {chosen.chunk} x{chosen.chunks} {chosen.weights}"
            f" states {chosen.states}"
            f"  {errors} {'' if row.get('right') else row.get('error', 'WRONG')}"
            f"  compiled {row.get('compiled_s', 0):.1f} s, at {time.perf_counter() - began:.0f} s  {case.id}",
            flush=True,
        )


if __name__ == "__main__":
    main()
