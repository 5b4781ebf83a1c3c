"""How long a training step of the paper's model takes by length, for linear, momentum and softmax attention.

``python scripts/time_training_step.py --json FILE`` on a machine with a GPU. The model is that of the copy
task (4 layers of 256, 8 heads of 32), the step the one that `mtbench train` runs, captured as a CUDA graph:
data, forward, backward, clipping, RAdam. Linear and momentum go by the Triton kernels, softmax by PyTorch's
scaled_dot_product_attention. A step has as many tokens at every length. Attentions take turns, round by
round; the figure is the median of all their steps but the first round's, by CUDA events.

It ends with two goals and whether they are met: momentum at most 1.1 times linear, at every length, and
momentum faster than softmax from 4,096 on.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from mtbench.spec import ATTENTIONS  # noqa: E402
from mtbench.training.settings import Job, Kernels, Schedule  # noqa: E402
from mtbench.training.tasks.copy import TASK  # noqa: E402
from mtbench.transformer.config import ModelConfig  # noqa: E402
from mtbench.words import by_kind, whole_numbers  # noqa: E402

STEPS = 8
"""Of a round."""
MOST, FROM = 1.1, 4096
"""The goals: momentum over linear, and from where on softmax is to be slower."""


def stepper_of(kind: str, seq_len: int, options: argparse.Namespace, precision: str) -> Any:
    """The steps of one attention at one length, with an epoch's data loaded."""
    import torch

    from mtbench.training.step import Stepper
    from mtbench.training.trainer import attention_by

    paper = TASK.presets["paper"]
    size = replace(paper.size, max_len=seq_len)
    batch = max(1, options.tokens // seq_len)
    job = Job(
        task="copy",
        variant=kind,
        seed=0,
        model=ModelConfig(size=size, attention=kind, momenta=TASK.momenta),
        schedule=Schedule(epochs=1, iterations=STEPS, batch=batch, seq_len=seq_len),
        optimization=paper.optimization,
        kernels=Kernels(
            backends=by_kind("--backend", options.backend, ATTENTIONS),
            forms=by_kind("--form", options.form, ATTENTIONS),
            device=options.device,
            precision=precision,  # type: ignore[arg-type]
            capture=options.device == "cuda",
        ),
    )
    torch.manual_seed(0)
    model = TASK.model(job.model, attention_by(job.kernels)).to(options.device)
    stepper = Stepper(job, TASK, model)
    stepper.load(TASK.batches(job.schedule, size, seed=0, epoch=0))
    return stepper


def measured(seq_len: int, options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """A row for each attention at one length: milliseconds of every step."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    steppers: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for kind in ATTENTIONS:
        rows[kind] = {"attention": kind, "seq_len": seq_len, "precision": precision, "step_ms": []}
        try:
            steppers[kind] = stepper_of(kind, seq_len, options, precision)
        except torch.OutOfMemoryError as error:
            rows[kind]["problem"] = str(error).splitlines()[0]
    for turn in range(options.rounds + 1):
        for kind, stepper in list(steppers.items()):
            stepper.rewind()
            try:
                epoch = stepper.finish(stepper.start(1e-3))
            except torch.OutOfMemoryError as error:
                rows[kind]["problem"] = str(error).splitlines()[0]
                del steppers[kind]
                continue
            if turn:  # the first compiles and captures
                rows[kind]["step_ms"] += [1000 * seconds for seconds in epoch.seconds]
    for row in rows.values():
        row["median_ms"] = median(row["step_ms"]) if row["step_ms"] else None
    return list(rows.values())


def told(rows: list[dict[str, Any]]) -> str:
    """A length in a line."""
    by = {row["attention"]: row["median_ms"] for row in rows}
    parts = [f"{kind} {'–' if ms is None else f'{ms:.3f} ms'}" for kind, ms in by.items()]
    others = [over for over in ("linear", "softmax") if by["momentum"] and by[over]]
    parts += [f"momentum / {over} {by['momentum'] / by[over]:.3f}" for over in others]
    return f"{rows[0]['precision']} seq_len {rows[0]['seq_len']}: " + ", ".join(parts)


def goals(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Each goal and whether every length meets it."""
    at = {(row["precision"], row["seq_len"], row["attention"]): row["median_ms"] for row in rows}
    found = []
    for precision in dict.fromkeys(row["precision"] for row in rows):
        lengths = [n for p, n, kind in at if p == precision and kind == "momentum"]
        cheap, faster = [], []
        for n in lengths:
            linear, momentum, softmax = (at[precision, n, k] for k in ("linear", "momentum", "softmax"))
            cheap.append(bool(linear and momentum and momentum <= MOST * linear))
            if n >= FROM:
                faster.append(bool(softmax and momentum and momentum < softmax))
        found.append((f"{precision}: momentum at most {MOST} times linear", all(cheap)))
        if faster:
            found.append((f"{precision}: momentum faster than softmax from {FROM} on", all(faster)))
    return found


def main() -> None:
    """Print a line a length, and the goals."""
    parser = argparse.ArgumentParser(description="A training step by length.")
    parser.add_argument("--seq-len", default="1024:16384:x2")
    parser.add_argument("--tokens", type=int, default=65536, help="of a step, at every length")
    parser.add_argument("--precision", default="bfloat16,float32", help="several with commas")
    parser.add_argument("--backend", default="softmax=torch-eager,triton")
    parser.add_argument("--form", default="softmax=sdpa")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    framework = load_framework("torch")
    framework.start(options.device, 4)
    if problem := framework.device_problem(options.device):
        parser.error(problem)
    settings = {name: x for name, x in vars(options).items() if name != "json"}
    rows: list[dict[str, Any]] = []
    for precision in options.precision.split(","):
        for seq_len in whole_numbers("--seq-len", options.seq_len) or ():
            found = measured(seq_len, options, precision)
            rows += found
            print(told(found), flush=True)
            framework.release()
            if options.json:  # a run that is cut off has left what it measured
                record = {"environment": environment(threads=4), "arguments": settings, "rows": rows}
                options.json.write_text(json.dumps(record, indent=1) + "\n")
    for goal, met in goals(rows):
        print(f"{'met' if met else 'NOT met'}: {goal}")


if __name__ == "__main__":
    main()
