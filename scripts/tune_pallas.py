"""Causal linear and momentum attention by Pallas in many tiles, checked and timed beside Triton's.

``python scripts/tune_pallas.py --out FOLDER`` on a machine with a GPU: for each choice, bfloat16, the output
(and the gradients) against those of the float64 oracle at a short length in the same tiles, and the device
clock, the L2 flushed. The tiles are the forward's; the backward has its own. The Triton backend's own time is
taken first, in a process of its own. A choice that does not compile or does not fit the card is said.
Everything is in ``FOLDER/pallas.json``, written after each row.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from scripts.tune_jax import device_ms  # noqa: E402
from scripts.tune_triton import the_case  # noqa: E402

AXES = {"rows": "0", "block": "0", "warps": "4,8", "stages": "1,2,3", "segments": "0"}
"""What is tried of each, 0 being the plan's own: positions of a chunk, columns of v that one program has."""
CHECKED = {"batch": 1, "heads": 2, "seq_len": 512}
"""The sizes at which a choice's numbers are judged, in as many segments up to four."""


def plan_of(case: Case, choice: dict[str, int], most: int | None = None) -> Any:
    """The plan of a case with a choice made, in at most so many segments."""
    plans = import_part("backends.pallas.plan")
    plan = plans.make_plan(case, plans.processors(case.device), segments=choice["segments"] or None)
    if most is not None and plan.segments > most:
        plan = plans.make_plan(case, segments=most)
    changed = {name: choice[name] for name in ("rows", "warps", "stages") if choice[name]}
    if block := choice["block"]:
        changed |= {"value_dim": block, "blocks": plan.dims[1] // block}
    return replace(plan, tiles=replace(plan.tiles, **changed))


def tried(case: Case, choice: dict[str, int], framework: Any) -> dict[str, Any]:
    """A choice's errors at the sizes that are judged, and its time."""
    attention_of = import_part("backends.pallas.attention").attention_of
    row: dict[str, Any] = {}
    try:
        plan = plan_of(case, choice)
        row["config"] = dict(plan.config)
        judge = judge_of(case.replace(**CHECKED))
        small = plan_of(judge.case, choice, most=min(4, plan.segments))
        kernel = framework.kernel(attention_of(small), judge.case)
        kernel.load(judge.inputs)
        agreement = judge.agreement("fused", kernel.outputs(kernel()))
        row["errors"] = {array: found.relative for array, found in agreement.items()}
        row["right"] = all(found.passes for found in agreement.values())
        if case.device == "cuda":
            row["device_ms"] = timed(framework.kernel(attention_of(plan), case), case, framework)
    except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
        row |= {"config": row.get("config", choice), "error": f"{error!r:.300}"}
    return row


@functools.cache
def judge_of(case: Case) -> Judge:
    """That of the small sizes."""
    return Judge(case, make_inputs(case))


def timed(kernel: Any, case: Case, framework: Any) -> float:
    """The median of the device clock, on one (batch, head) pair's inputs for all of them."""
    one = make_inputs(case.replace(batch=1, heads=1))
    arrays = {
        name: np.tile(x, (case.batch, case.heads, 1, 1))
        for name in ("q", "k", "v", "do")
        if (x := getattr(one, name)) is not None
    }
    kernel.load(Inputs(**arrays))
    return device_ms(kernel, framework)


def the_cases(options: argparse.Namespace) -> list[Case]:
    """Each shape with each mode and kind."""
    lists = (options.shape.split(";"), options.mode.split(","), options.kind.split(","))
    return [the_case(shape, kind, mode, options.device) for shape, mode, kind in itertools.product(*lists)]


def of_triton(options: argparse.Namespace) -> None:
    """The Triton backend's times, printed as JSON."""
    framework = load_framework("torch")
    framework.start(options.device, 4)
    found = {}
    for case in the_cases(options):
        kernel = import_part("backends.triton").BACKEND.build(case, "fused")
        found[case.id] = timed(kernel, case, framework) if case.device == "cuda" else None
    print(json.dumps(found))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    own, triton = row.get("device_ms"), row["triton_ms"]
    over = f"{own / triton:5.2f}x" if own and triton else "     -"
    error = max(row.get("errors", {"": 0.0}).values())
    said = "" if row.get("right") else row.get("error", "WRONG")
    return f"{over} {own or 0:8.4f} ms err {error:.1e} {row['case']} {row['config']} {said}"


def main() -> None:
    """Check and time."""
    parser = argparse.ArgumentParser(description="Tiles of the Pallas kernels, tried.")
    shape = "batch,heads,seq_len,head_dim: a power of two; several with ;"
    parser.add_argument("--shape", default="8,16,4096,128", help=shape)
    parser.add_argument("--kind", default="linear,momentum")
    parser.add_argument("--mode", default="forward", help="forward, forward_backward; several with ,")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: checked, not timed")
    for name, values in AXES.items():
        parser.add_argument(f"--{name}", default=values)
    parser.add_argument("--triton", action="store_true", help="print the Triton backend's times alone")
    parser.add_argument("--out", type=Path, default=Path("tune-pallas"))
    options = parser.parse_args()
    if options.triton:
        of_triton(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    beside = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--triton"], stdout=subprocess.PIPE, text=True, check=True
    )
    triton = json.loads(beside.stdout.splitlines()[-1])
    framework = load_framework("jax")
    framework.start(options.device, 4)
    lists = [[int(x) for x in getattr(options, name).split(",")] for name in AXES]
    record: list[dict[str, Any]] = []
    for case, numbers in itertools.product(the_cases(options), itertools.product(*lists)):
        row = tried(case, dict(zip(AXES, numbers, strict=True)), framework)
        record.append({"case": case.id, "triton_ms": triton[case.id]} | row)
        print(line(record[-1]), flush=True)
        (options.out / "pallas.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
