"""How long a training step on images takes, with and without torch.compile, and which kernels take it.

``python scripts/time_image_step.py --out FOLDER`` on a machine with a GPU. It has the paper's model of MNIST;
the step is that of `mtbench train --task mnist --preset card`, captured as a CUDA graph: data, forward,
backward, clipping, RAdam. The images are noise of which four fifths are 0, as in MNIST. A line a variant and
way: milliseconds a step by CUDA events, tokens a second, their share of what a product of two matrices
reaches in the same run, and what ten epochs of MNIST would take; then the kernels that took most, of the last
steps under a profiler. All of it is in FOLDER/steps.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from mtbench.spec import ATTENTIONS  # noqa: E402
from mtbench.training.settings import Job, Kernels, Schedule  # noqa: E402
from mtbench.training.tasks.mnist import TASK, TRAINING  # noqa: E402
from mtbench.training.variants import Variant  # noqa: E402
from mtbench.transformer.config import ModelConfig  # noqa: E402
from mtbench.words import by_kind  # noqa: E402

BLACK = 0.8
"""Of the pixels."""
EPOCHS = 10


def job_of(variant: str, compiled: bool, options: argparse.Namespace) -> Job:
    """That of the preset card, with what the options change."""
    card, found = TASK.presets["card"], Variant.parse(variant)
    size = replace(card.size, layers=options.layers or card.size.layers)
    model = ModelConfig(
        size=size, attention=found.attention, connection=found.connection, momenta=TASK.momenta
    )
    batch = options.batch or card.schedule.batch
    return Job(
        task="mnist",
        variant=variant,
        seed=0,
        model=model,
        schedule=Schedule(epochs=1, iterations=options.steps, batch=batch, seq_len=card.schedule.seq_len),
        optimization=card.optimization,
        kernels=Kernels(
            backends=by_kind("--backend", options.backend, ATTENTIONS),
            forms=by_kind("--form", options.form, ATTENTIONS),
            device=options.device,
            precision="bfloat16",
            capture=options.device == "cuda",
            compiled=compiled,
        ),
    )


def measured(job: Job, profiled: bool) -> dict[str, Any]:
    """Milliseconds of every step but the first epoch's, which compiles and captures."""
    import torch

    from mtbench.training.step import Stepper
    from mtbench.training.trainer import attention_by
    from mtbench.transformer.fused import compile_parts

    torch.manual_seed(0)
    model = TASK.model(job.model, attention_by(job.kernels)).to(job.kernels.device)
    if job.kernels.compiled:
        compile_parts(model)
    stepper = Stepper(job, TASK, model)
    rng = np.random.default_rng(0)
    shape = (job.schedule.iterations, job.schedule.batch, job.schedule.seq_len)
    pixels = np.where(rng.random(shape) < BLACK, 0, rng.integers(0, 256, shape)).astype(np.uint8)
    stepper.load({"pixels": pixels})
    first = stepper.finish(stepper.start(1e-4))
    stepper.rewind()
    later = stepper.finish(stepper.start(1e-4))
    row = {
        "variant": job.variant,
        "compiled": job.kernels.compiled,
        "batch": job.schedule.batch,
        "first_epoch_s": sum(first.seconds),
        "step_ms": [1000 * s for s in later.seconds],
        "captured": later.captured,
        "kernels_ms": {},
    }
    if profiled:
        stepper.rewind()
        row["kernels_ms"] = kernels(lambda: stepper.finish(stepper.start(1e-4)), job.schedule.iterations)
    return row


def kernels(run: Any, steps: int) -> dict[str, float]:
    """Milliseconds a step of each kernel, by torch's profiler, those that take most first."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
    times: Counter[str] = Counter()
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.time_range.elapsed_us() / 1000 / steps
    return dict(times.most_common())


def told(row: dict[str, Any], job: Job, rate: float | None) -> str:
    """A line of a row, which gets what is in it."""
    ms = median(row["step_ms"])
    row["tokens_per_s"] = job.schedule.tokens / ms * 1000
    row["share"] = None
    if rate:
        operations = import_part("reports.training_work").model_operations(job)
        row["share"] = operations * row["tokens_per_s"] / rate
    minutes = EPOCHS * TRAINING / row["batch"] * ms / 60_000
    share = "" if row["share"] is None else f", {row['share']:.1%} of the card's rate"
    way = "compiled" if row["compiled"] else "as it is"
    return (
        f"{row['variant']}, {way}: {ms:.3f} ms a step, {row['tokens_per_s'] / 1e6:.2f} M tokens/s{share}; "
        f"{EPOCHS} epochs {minutes:.1f} min; first {len(row['step_ms'])} steps {row['first_epoch_s']:.0f} s"
    )


def main() -> None:
    """Print a line a variant and way, and the kernels of each."""
    parser = argparse.ArgumentParser(description="A training step on images.")
    parser.add_argument("--variant", default="momentum,momentum+adaptive,softmax")
    parser.add_argument("--ways", default="plain,compiled", help="plain, compiled, or both with a comma")
    parser.add_argument("--batch", type=int, help="of a step; the preset's")
    parser.add_argument("--layers", type=int, help="of the model; the paper's")
    parser.add_argument("--steps", type=int, default=30, help="of a round, of which there are three")
    parser.add_argument("--backend", default="softmax=torch-eager,triton")
    parser.add_argument("--form", default="softmax=sdpa")
    parser.add_argument("--kernels", type=int, default=14, help="that are printed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    framework = load_framework("torch")
    framework.start(options.device, 4)
    if problem := framework.device_problem(options.device):
        parser.error(problem)
    options.out.mkdir(parents=True, exist_ok=True)
    reached: dict[str, Any] = {}
    if options.device == "cuda":
        from mtbench.frameworks.torch_rates import rates

        reached = dict(rates(("bfloat16",)))
    rate = reached.get("matmul_flop_per_s", {}).get("bfloat16")
    rows: list[dict[str, Any]] = []
    for variant in options.variant.split(","):
        for way in options.ways.split(","):
            job = job_of(variant, way == "compiled", options)
            row = measured(job, profiled=options.device == "cuda")
            print(told(row, job, rate), flush=True)
            for name, ms in list(row["kernels_ms"].items())[: options.kernels]:
                print(f"    {ms:8.4f} ms  {name[:100]}", flush=True)
            rows.append(row)
            framework.release()
            record = {"environment": environment(threads=4), "reached": reached, "rows": rows}
            # A run that is cut off has left what it measured.
            (options.out / "steps.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
