"""The two ways in which the Triton kernels attend over short sequences, timed beside each other: by scores
alone (the parallel form) and by states (the chunked one), forward and back, and softmax attention.

``python scripts/time_short_attention.py --out DIR`` on a machine with a GPU. All kernels are compiled first,
in as many processes as there are cores. Batches have as many positions at every length, and sequences fill
half to all of theirs; each way's output and gradients are held against the float64 oracle's on a few
sequences. It prints a line a length and way, with what each launch took in turn, and ends with the length up
to which the parallel form is the faster one: `MOST_KEYS` in backends/triton/parallel_tiles.py is to be that.
DIR gets ``times.json``.

With ``--warps 1,2,4`` or ``--columns 16,32`` the parallel form is timed in those tiles, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from tune_triton import timed  # noqa: E402

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from mtbench.words import whole_numbers  # noqa: E402

JUDGED = 3
"""Sequences of a batch that is held against the oracle."""
OWN = {"warps": None, "columns": None}


def cases(options: argparse.Namespace) -> list[Case]:
    """Each mask, attention and length."""
    found = []
    for causal, kind, n in itertools.product(
        (False, True), options.kind.split(","), whole_numbers("--seq-len", options.seq_len) or ()
    ):
        batch = max(1, options.tokens // n)
        lengths = np.random.default_rng(0).integers(max(1, n // 2), n + 1, batch)
        found.append(
            Case(
                spec=AttentionSpec(kind=kind, causal=causal, beta=0.6, gamma=0.6),
                batch=batch, heads=options.heads, seq_len=n, head_dim=options.head_dim, dtype=options.dtype,
                lengths=tuple(int(x) for x in lengths), device=options.device, mode="forward_backward",
            )
        )  # fmt: skip
    return found


def ways(case: Case, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is timed of a case: its name, and the warps and columns of the parallel form's tiles."""
    if case.spec.kind == "softmax":
        yield "softmax", {}
        return
    yield "chunked", {}
    yield "parallel", dict(OWN)
    for warps, columns in itertools.product(*(given(getattr(options, name)) for name in OWN)):
        if (warps, columns) != (None, None):
            yield "parallel", {"warps": warps, "columns": columns}


def given(text: str | None) -> list[int | None]:
    """The numbers of an option, or the backend's own choice."""
    return [None] if text is None else [int(x) for x in text.split(",")]


def plan_of(case: Case, way: str, choice: dict[str, Any]) -> Any:
    """The plan of a way."""
    import torch

    processors = 1
    if case.device == "cuda":
        processors = torch.cuda.get_device_properties(0).multi_processor_count
    make_plan = import_part("backends.triton.plan").make_plan
    plan = make_plan(case, case.device, processors, parallel=way == "parallel")

    def changed(tiles: Any) -> Any:
        columns = choice["columns"]
        wide = {} if columns is None else {"head_dim": columns, "value_dim": columns}
        return replace(tiles, warps=choice["warps"] or tiles.warps, **wide)

    if way != "parallel":
        return plan
    return replace(plan, tiles=changed(plan.tiles), gradient_tiles=tuple(map(changed, plan.gradient_tiles)))


def kernel_of(case: Case, plan: Any, framework: Any) -> Any:
    """The function of a plan, forward and back."""
    attention, gradients = import_part("backends.triton").kernels_of(plan)
    start = import_part("backends.triton.launch").start
    differentiable = import_part("backends.triton.differentiable").differentiable
    return framework.kernel(differentiable(attention, gradients, plan, start), case)


def errors_of(case: Case, way: str, choice: dict[str, Any], framework: Any) -> dict[str, Any]:
    """Against the oracle, on a few sequences; the batch is not compiled into the kernels."""
    few = case.replace(batch=min(JUDGED, case.batch), lengths=(case.lengths or ())[:JUDGED])
    judge = Judge(few, make_inputs(few))
    kernel = kernel_of(few, plan_of(few, way, choice), framework)
    kernel.load(judge.inputs)
    result = kernel()
    kernel.wait(result)
    agreement = judge.agreement("fused", kernel.outputs(result))
    return {
        "errors": {name: a.relative for name, a in agreement.items()},
        "right": all(a.passes for a in agreement.values()),
    }


def once(kernel: Any) -> dict[str, Any]:
    """On a CPU, where the kernels are interpreted: a time that means nothing."""
    began = time.perf_counter()
    kernel.wait(kernel())
    return {"device_ms": 1e3 * (time.perf_counter() - began), "launches_ms": []}


def compile_part(options: argparse.Namespace) -> None:
    """This process's share of the ways, into Triton's cache."""
    launch = import_part("backends.triton.launch")
    launch.enter("cuda")
    part, parts = (int(x) for x in options.part.split("/"))
    every = [(case, *way) for case in cases(options) for way in ways(case, options)]
    for case, way, choice in every[part::parts]:
        try:
            plan = plan_of(case, way, choice)
            import_part("backends.triton").compile_all(plan, launch.compile_only)
        except Exception as error:  # noqa: BLE001  (it is reported where it is run)
            print(f"{case.id} {way} {choice}: {error!r:.200}", file=sys.stderr)


def compile_all(options: argparse.Namespace) -> None:
    """In as many processes as there are cores."""
    parts = os.cpu_count() or 1
    command = [sys.executable, __file__, *sys.argv[1:], "--part"]
    for worker in [subprocess.Popen([*command, f"{part}/{parts}"]) for part in range(parts)]:
        worker.wait()


def measured(case: Case, inputs: Inputs, way: str, choice: dict[str, Any], framework: Any) -> dict[str, Any]:
    """A row: whether it is right, and its times."""
    spec = case.spec
    row: dict[str, Any] = {"kind": spec.kind, "causal": spec.causal, "seq_len": case.seq_len, "way": way}
    row |= {"batch": case.batch, "choice": choice}
    try:
        plan = plan_of(case, way, choice)
        row["tiles"] = [asdict(tiles) for tiles in (plan.tiles, *plan.gradient_tiles)]
        row |= errors_of(case, way, choice, framework)
        kernel = kernel_of(case, plan, framework)
        kernel.load(inputs)
        row |= timed(kernel, framework) if case.device == "cuda" else once(kernel)
    except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
        row["error"] = f"{error!r:.200}"
    return row


def told(row: dict[str, Any]) -> str:
    """A row in a line: microseconds of a call, and of each launch in turn."""
    mask = "causal" if row["causal"] else "full"
    parts = " ".join(f"{1000 * ms:.1f}" for ms in row.get("launches_ms", ()))
    chosen = " ".join(f"{name} {value}" for name, value in row["choice"].items() if value)
    return (
        f"{row['kind']} {mask} {row['batch']} x {row['seq_len']} {row['way']} {chosen}: "
        f"{1000 * row.get('device_ms', float('nan')):.1f} us ({parts}) "
        f"{'' if row.get('right') else row.get('error', 'WRONG')}"
    )


def borders(rows: list[dict[str, Any]]) -> list[str]:
    """Up to which length the parallel form, in its own tiles, is right and the faster one."""
    at = {
        (row["kind"], row["causal"], row["seq_len"], row["way"]): row["device_ms"]
        for row in rows
        if row.get("right") and row["choice"] in ({}, OWN)
    }
    found = []
    for kind, causal in dict.fromkeys((row["kind"], row["causal"]) for row in rows):
        lengths = sorted({row["seq_len"] for row in rows if (row["kind"], row["causal"]) == (kind, causal)})
        ratios = {}
        for n in lengths:
            ours, theirs = (at.get((kind, causal, n, way)) for way in ("parallel", "chunked"))
            if ours and theirs:
                ratios[n] = theirs / ours
        first = next((n for n in lengths if ratios.get(n, 0) <= 1), None)
        last = max((n for n in lengths if first is None or n < first), default=0)
        if ratios:
            listed = ", ".join(f"{n}: {ratio:.2f}" for n, ratio in ratios.items())
            mask = "causal" if causal else "full"
            found.append(f"{kind} {mask}: parallel is faster up to {last} (chunked / parallel {listed})")
    return found


def main() -> int:
    """Compile, check and time; 0 where every row is right."""
    parser = argparse.ArgumentParser(description="Short sequences by scores and by states.")
    parser.add_argument("--seq-len", default="10,20,40,64,80,128")
    parser.add_argument("--kind", default="softmax,linear,momentum")
    parser.add_argument("--tokens", type=int, default=10240, help="positions of a batch, at every length")
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=139)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda", help="or cpu, where the kernels are interpreted")
    parser.add_argument("--warps", help="of the parallel form, to be tried too")
    parser.add_argument("--columns", help="that the parallel form takes at a time, to be tried too")
    parser.add_argument("--part", help="compile one part of all and end: 0/16")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.part:
        compile_part(options)
        return 0
    framework = load_framework("torch")
    framework.start(options.device, 4)
    if problem := framework.device_problem(options.device):
        parser.error(problem)
    if options.device == "cuda":
        compile_all(options)
    import_part("backends.triton.launch").enter(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {name: x for name, x in vars(options).items() if name not in ("out", "part")}
    rows: list[dict[str, Any]] = []
    for case in cases(options):
        inputs = make_inputs(case)
        for way, choice in ways(case, options):
            rows.append(measured(case, inputs, way, choice, framework))
            print(told(rows[-1]), flush=True)
        record = {"environment": environment(threads=4), "arguments": settings, "rows": rows}
        (options.out / "times.json").write_text(json.dumps(record, indent=1) + "\n")
    for line in borders(rows):
        print(line)
    return int(not all(row.get("right") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
