"""Causal linear and momentum attention by Pallas in many tiles, checked and timed beside Triton's.

``python scripts/tune_pallas.py --out FOLDER`` on a machine with a GPU: for each choice, bfloat16, the output
(and the gradients) against those of the float64 oracle at a short length in the same tiles, and the device
clock, the L2 flushed. The Triton backend's own time is taken first, in a process of its own. A choice that
does not compile or does not fit the card is said. Everything is in ``FOLDER/pallas.json``, written after each
row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import Inputs, make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from scripts.tune_jax import device_ms  # noqa: E402

Choice = tuple[str, dict[str, Any], int]
"""The map, what of the tiles is changed, and by how much the segments are more."""
SHAPES = "8,16,4096,128;1,16,65536,128;8,16,4096,64"
CHECKED = {"batch": 1, "heads": 2, "seq_len": 1024}
"""The sizes at which a choice's numbers are judged."""


def the_case(shape: str, kind: str, mode: str, device: str) -> Case:
    """Causal, bfloat16."""
    batch, heads, n, dim = (int(x) for x in shape.split(","))
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    sizes: dict[str, Any] = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
    return Case(spec=spec, dtype="bfloat16", device=device, mode=mode, **sizes)  # type: ignore[arg-type]


def choices(case: Case) -> Iterator[Choice]:
    """First what was there before phi was hidden."""
    yield "plain", {}, 1
    yield "select", {}, 1
    yield "clamped", {}, 1
    if case.spec.kind == "momentum":
        yield "select-table", {}, 1
    if case.mode == "forward_backward":
        return
    own = import_part("backends.pallas.tiles").scan_tiles(case)
    wide = case.head_dim > 64
    if wide:  # all values in one program: phi is made once
        for stages, name in itertools.product((3, 2), ("select", "clamped")):
            yield name, {"value_dim": case.value_dim, "blocks": 1, "warps": 8, "stages": stages}, 1
    for stages, name in itertools.product((3, 2, 1), ("select", "clamped")):
        if stages != own.stages:
            yield name, {"stages": stages}, 1
    yield "select", {}, 2
    if wide:
        yield "select", {"warps": 8}, 1


def plan_of(case: Case, choice: Choice) -> Any:
    """The plan of a case with a choice made."""
    plans = import_part("backends.pallas.plan")
    name, changed, more = choice
    own = plans.make_plan(case, plans.processors(case.device))
    if more > 1:
        own = plans.make_plan(case, segments=own.segments * more)
    return replace(
        own,
        numbers=own.numbers._replace(map=name.removesuffix("-table")),
        tiles=replace(own.tiles, **changed),
        factored=name in ("select", "clamped"),
    )


def tried(case: Case, choice: Choice, judge: Judge, framework: Any) -> dict[str, Any]:
    """A choice's errors at the sizes that are judged, in as many segments up to four, and its time."""
    attention_of = import_part("backends.pallas.attention").attention_of
    name, changed, more = choice
    row: dict[str, Any] = {"map": name, "more_segments": more} | changed
    began = time.perf_counter()
    try:
        plan = plan_of(case, choice)
        row |= {"config": dict(plan.config)}
        small = plan_of(judge.case, choice)
        few = import_part("backends.pallas.plan").make_plan(judge.case, segments=min(4, plan.segments))
        small = replace(small, segment=few.segment)
        kernel = framework.kernel(attention_of(small), judge.case)
        kernel.load(judge.inputs)
        agreement = judge.agreement("fused", kernel.outputs(kernel()))
        row["errors"] = {array: found.relative for array, found in agreement.items()}
        row["right"] = all(found.passes for found in agreement.values())
        if case.device == "cuda":
            row["device_ms"] = timed(framework.kernel(attention_of(plan), case), case, framework)
    except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
        row["error"] = f"{error!r:.300}"
    row["took_s"] = time.perf_counter() - began
    return row


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


def of_triton(options: argparse.Namespace) -> None:
    """The Triton backend's times, printed as JSON."""
    framework = load_framework("torch")
    framework.start(options.device, 4)
    found = {}
    for case in the_cases(options):
        kernel = import_part("backends.triton").BACKEND.build(case, "fused")
        found[case.id] = timed(kernel, case, framework) if case.device == "cuda" else None
    print(json.dumps(found))


def the_cases(options: argparse.Namespace) -> list[Case]:
    """All of them, those that share inputs together."""
    lists = (options.shape.split(";"), options.mode.split(","), options.kind.split(","))
    return [the_case(shape, kind, mode, options.device) for shape, mode, kind in itertools.product(*lists)]


def main() -> None:
    """Check and time."""
    parser = argparse.ArgumentParser(description="Tiles of the Pallas kernels, tried.")
    parser.add_argument("--shape", default=SHAPES, help="batch,heads,seq_len,head_dim; several with ;")
    parser.add_argument("--kind", default="linear,momentum")
    parser.add_argument("--mode", default="forward")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: checked, not timed")
    parser.add_argument("--limit-s", type=float, default=145.0, help="after so long no choice is begun")
    parser.add_argument("--triton", action="store_true", help="print the Triton backend's times alone")
    parser.add_argument("--out", type=Path, default=Path("tune-pallas"))
    options = parser.parse_args()
    if options.triton:
        of_triton(options)
        return
    began = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *sys.argv, "--triton"]
    beside = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    triton = json.loads(beside.splitlines()[-1]) if beside.strip() else {}
    framework = load_framework("jax")
    framework.start(options.device, 4)
    record: list[dict[str, Any]] = []
    cases = the_cases(options)
    todo = [(case, list(choices(case))) for case in cases]
    for turn in range(max(len(own) for _, own in todo)):  # every case's first choices before any case's last
        for case, own in todo:
            if turn >= len(own) or time.perf_counter() - began > options.limit_s:
                continue
            row = tried(case, own[turn], judge_of(case), framework)
            record.append(row | {"case": case.id, "triton_ms": triton.get(case.id)})
            print(line(record[-1]), flush=True)
            (options.out / "pallas.json").write_text(json.dumps(record, indent=1) + "\n")
    print("the fastest right choice of each case:")
    for case in cases:
        right = [row for row in record if row["case"] == case.id and row.get("right") and "device_ms" in row]
        if right:
            print(line(min(right, key=lambda row: row["device_ms"])))
    print(f"{len(record)} of {sum(len(own) for _, own in todo)} choices, {time.perf_counter() - began:.0f} s")


JUDGES: dict[str, Judge] = {}


def judge_of(case: Case) -> Judge:
    """That of the small sizes."""
    small = case.replace(**CHECKED)
    if small.id not in JUDGES:
        JUDGES[small.id] = Judge(small, make_inputs(small))
    return JUDGES[small.id]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    own, triton = row.get("device_ms"), row["triton_ms"]
    over = f"{own / triton:5.2f}x" if own and triton else "     -"
    changed = {name: row[name] for name in ("blocks", "warps", "stages", "more_segments") if name in row}
    error = max(row.get("errors", {"": 0.0}).values())
    said = "" if row.get("right") else row.get("error", "WRONG")
    return f"{over} {own or 0:8.4f} ms err {error:.1e} {row['case']} {row['map']} {changed} {said}"


if __name__ == "__main__":
    main()
