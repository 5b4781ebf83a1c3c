"""The chunked Triton kernels of linear and momentum attention in many tile sizes, each checked and timed.

``python scripts/tune_triton.py --shape "8,16,4096,64;1,16,16384,64" --kind linear,momentum --json FILE`` on a
machine with a GPU. All choices are compiled first, in as many processes as there are cores; then each is run
in this one: its output against that of the float64 oracle on a sample of rows, and its device clock, the
L2 flushed, beside a copy of the same bytes. A choice that is wrong, or does not fit the card, is said.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.inputs import make_inputs  # noqa: E402
from mtbench.measure.agreement import Judge  # noqa: E402
from mtbench.measure.clocks import Sampling, device_samples, warm_up  # noqa: E402
from mtbench.measure.cupti import recorder  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

SAMPLING = Sampling(least=20, least_s=0.05, limit_s=0.15, warmup_s=0.01)
PARTED = 7
"""Calls of which each launch is timed by itself."""


def the_case(shape: str, kind: str, mode: str, device: str = "cuda") -> Case:
    """Causal, bfloat16."""
    batch, heads, n, dim = (int(x) for x in shape.split(","))
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    sizes: dict[str, Any] = {"batch": batch, "heads": heads, "seq_len": n, "head_dim": dim}
    return Case(spec=spec, dtype="bfloat16", device=device, mode=mode, **sizes)  # type: ignore[arg-type]


def choices(case: Case, options: argparse.Namespace) -> Iterator[tuple[Any, int, tuple[Any, ...] | None]]:
    """Tiles, segments and the backward's tiles."""
    tiles = import_part("backends.triton.tiles").Tiles
    if case.spec.kind == "softmax":  # the forward's are its own
        for backward in backward_choices(case, options):
            yield import_part("backends.triton.tiles").softmax_tiles(case), 1, backward
        return
    own = import_part("backends.triton.tiles").linear_tiles(case)
    lists = ([None if x == OWN else int(x) for x in getattr(options, name).split(",")] for name in AXES)
    for rows, block, warps, stages, registers, segments, factored, columns in itertools.product(*lists):
        if block <= case.value_dim:
            forward = tiles(
                rows=rows, keys=rows, head_dim=case.head_dim, value_dim=block,
                value_blocks=case.value_dim // block, warps=warps, stages=stages, registers=registers or None,
                factored=own.factored if factored is None else bool(factored), columns=columns or own.columns,
            )  # fmt: skip
            for backward in backward_choices(case, options):
                yield forward, segments, backward


def backward_choices(case: Case, options: argparse.Namespace) -> Iterator[tuple[Any, ...] | None]:
    """Tiles of dq, dk and dv, with the same rows, warps, stages, registers and, where it is said, `factored`;
    None: the plan's own."""
    yield None
    if case.mode == "forward" or not options.backward:
        return
    plans = import_part("backends.triton.plan")
    by_queries, *by_keys = plans.make_plan(case, "cpu", parallel=False).gradient_tiles
    for choice in options.backward.split(";"):
        sizes, *rest = choice.split(",")
        own, other = (int(x) for x in (sizes.split("/") * 2)[:2])
        warps, stages, registers, *factored = (int(x) for x in rest)
        rest = {"warps": warps, "stages": stages, "registers": registers or None}
        if factored:
            rest["factored"] = bool(factored[0])
        yield (
            replace(by_queries, rows=own, keys=other, **rest),
            *(replace(tiles, rows=other, keys=own, **rest) for tiles in by_keys),
        )


OWN = "own"
"""An axis at what the backend takes by itself."""
AXES = {
    "rows": "64",
    "block": "64",
    "warps": "4,8",
    "stages": "2,3",
    "registers": "0",  # 0: as many as the compiler likes
    "segments": "1,2,4",  # 0: the plan's own
    "factored": OWN,  # u(i-j), where a chunk forgets: 0 a tile of registers, 1 two factors
    "columns": OWN,  # of the product with z at the least: 16 or 8
}


def plan_of(case: Case, tiles: Any, segments: int, backward: tuple[Any, ...] | None) -> Any:
    """The plan of one choice, for this card."""
    import torch

    processors = torch.cuda.get_device_properties(0).multi_processor_count
    make_plan = import_part("backends.triton.plan").make_plan
    sizes: dict[str, Any] = {"tiles": tiles, "segments": segments, "gradient_tiles": backward}
    return make_plan(case, "cuda", processors, parallel=False, **sizes)


def after(row: dict[str, Any]) -> str:
    """The backward's tiles of a row, where they were chosen."""
    tiles = row.get("backward", [])[:1]
    return "".join(
        f" backward {t['rows']}/{t['keys']},{t['warps']},{t['stages']},{t['registers'] or 0}"
        f",{t['factored']:d}"
        for t in tiles
    )


def the_cases(options: argparse.Namespace) -> list[Case]:
    """Each mode and shape with each kind."""
    return [
        the_case(shape, kind, mode)
        for mode in options.mode.split(",")
        for shape in options.shape.split(";")
        for kind in options.kind.split(",")
    ]


def forward_of(plan: Any, options: argparse.Namespace) -> Any:
    """What computes the output: the backend's own choice, or a module of it by name."""
    if options.kernel:
        return import_part(f"backends.triton.{options.kernel}").attention
    return import_part("backends.triton").kernels_of(plan)[0]


def compile_part(options: argparse.Namespace) -> None:
    """This process's share of the choices, into Triton's cache."""
    launch = import_part("backends.triton.launch")
    launch.enter("cuda")
    part, parts = (int(x) for x in options.part.split("/"))
    every = [(case, choice) for case in the_cases(options) for choice in choices(case, options)]
    for case, choice in every[part::parts]:
        plan = plan_of(case, *choice)
        try:
            package = import_part("backends.triton")
            if case.mode == "forward":
                forward_of(plan, options)(plan, launch.compile_only, *package.shapes_of(case))
            else:
                package.compile_all(plan, launch.compile_only)
        except Exception as error:  # noqa: BLE001  (it is reported where it is run)
            print(f"{choice}: {error!r:.200}", file=sys.stderr)


def timed(kernel: Any, framework: Any) -> dict[str, Any]:
    """Device and span clock, and what each launch of a call took in turn, ms."""
    warm_up(kernel, SAMPLING)
    device, span, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
    cupti, launches = recorder(), []
    with cupti.recording():
        kernel.wait(kernel())
        for _ in range(PARTED):
            framework.flush_cache("cuda")
            cupti.drain()
            kernel.wait(kernel())
            launches.append([(end - start) / 1e6 for start, end in cupti.drain()])
    return {
        "device_ms": device.median,
        "span_ms": span.median,
        "launches_ms": [median(times) for times in zip(*launches, strict=True)],
    }


def tuned(case: Case, options: argparse.Namespace, framework: Any) -> dict[str, Any]:
    """Every choice for a case: what it is, its errors, its times; the fastest first."""
    package = import_part("backends.triton")
    launch = import_part("backends.triton.launch")
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    copy = framework.kernel(lambda q, k, v: (q.clone(), k.clone())[0], case.replace(mode="forward"))
    copy.load(inputs)
    floor = timed(copy, framework)["device_ms"]
    if case.mode == "forward_backward":
        floor *= 3
    print(f"{case.id}: floor {floor:.4f} ms", flush=True)
    found = []
    for tiles, segments, backward in choices(case, options):
        plan = plan_of(case, tiles, segments, backward)
        attention, gradients = forward_of(plan, options), package.kernels_of(plan)[1]
        row: dict[str, Any] = {"tiles": asdict(tiles), "segments": plan.queries.segments}
        if backward:
            row["backward"] = [asdict(t) for t in backward]
        try:
            if case.mode == "forward":
                function = functools.partial(package.output, attention, plan)
            else:
                differentiable = import_part("backends.triton.differentiable").differentiable
                function = differentiable(attention, gradients, plan, launch.start)
            kernel = framework.kernel(function, case)
            kernel.load(judge.inputs)
            result = kernel()
            kernel.wait(result)
            agreement = judge.agreement("fused", kernel.outputs(result))
            row["errors"] = {name: a.relative for name, a in agreement.items()}
            row["right"] = all(a.passes for a in agreement.values())
            kernel.load(inputs)
            row |= timed(kernel, framework)
            row["over_floor"] = row["device_ms"] / floor
        except Exception as error:  # noqa: BLE001  (a choice that does not fit is an answer)
            row["error"] = f"{error!r:.200}"
        found.append(row)
    found.sort(key=lambda row: row.get("over_floor", np.inf))
    shown = found[: options.show]
    for row in shown + [row for row in found[options.show :] if not row.get("right")]:
        t = row["tiles"]
        parts = " ".join(f"{ms:.4f}" for ms in row.get("launches_ms", ()))
        print(
            f"{row.get('over_floor', 0):6.2f}x {row.get('device_ms', 0):8.4f} ms ({parts}){after(row)} "
            f"rows {t['rows']} block {t['value_dim']} warps {t['warps']} stages {t['stages']} "
            f"registers {t['registers'] or 0} segments {row['segments']} factored {t['factored']:d} "
            f"columns {t['columns']} "
            f"{'' if row.get('right') else row.get('error', 'WRONG')}",
            flush=True,
        )
    return {"case": case.id, "floor_ms": floor, "rows": found}


def main() -> None:
    """Compile, then check and time."""
    parser = argparse.ArgumentParser(description="Tile sizes of the Triton kernels, tried.")
    parser.add_argument(
        "--shape",
        default="8,16,4096,64",
        help="batch,heads,seq_len,head_dim: a power of two; several with ; between them",
    )
    parser.add_argument("--kind", default="momentum", help="softmax, linear, momentum; several with ,")
    parser.add_argument("--mode", default="forward", help="or forward_backward; both with , between them")
    for name, values in AXES.items():
        parser.add_argument(f"--{name}", default=values)
    parser.add_argument(
        "--backward",
        help=(
            "rows,warps,stages,registers of the backward's kernels, and with one more number whether they "
            "are factored; several with ; between them. "
            "softmax: own rows/others, as in 128/64,8,2,0"
        ),
    )
    parser.add_argument("--kernel", help="a module of the backend for the forward, such as single_pass")
    parser.add_argument("--part", help="compile one part of all and end: 0/16")
    parser.add_argument("--show", type=int, default=15, help="choices of each case to print")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.part:
        compile_part(options)
        return
    parts = os.cpu_count() or 1
    workers = [
        subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--part", f"{part}/{parts}"])
        for part in range(parts)
    ]
    for worker in workers:
        worker.wait()

    import_part("backends.triton.launch").enter("cuda")
    framework = load_framework("torch")
    framework.start("cuda", 4)
    found = []
    for case in the_cases(options):
        found.append(tuned(case, options, framework))
        if options.json:  # after each: a run that is cut off leaves what it has
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
