"""How long a training step of a task takes, with and without torch.compile, and which kernels take it.

``python scripts/time_task_step.py --task translation --out FOLDER`` on a machine with a GPU. It has the model
and the schedule of a preset (`mtbench train --task T --preset P --precision bfloat16`), and a step of it,
captured as a CUDA graph: data, forward, backward, clipping, RAdam. Without ``--data`` images are noise of
which four fifths are 0, as in MNIST, and sentences are noise of 3 symbols up to as many as fit. A line a
variant and way: milliseconds a step by CUDA events, over shapes of batch in the schedule's proportion,
positions a second, of a decoder their share of what a product of two matrices reaches in the same run, what
the preset's epochs would take, and the loss, by which ways can be held against each other; then the kernels
that took most, of the last steps under a profiler, and how often each ran. All of it is in FOLDER/steps.json.

Ways are ``plain``, ``compiled``, and ``unpadded``, which leaves products of odd sizes to cuBLAS as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.errors import BadInput  # noqa: E402
from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from mtbench.spec import ATTENTIONS  # noqa: E402
from mtbench.training.command import Asked, plan_jobs, preset_of  # noqa: E402
from mtbench.training.settings import Job, Kernels  # noqa: E402
from mtbench.training.tasks import Data, Task, grouped, load_task  # noqa: E402
from mtbench.training.tasks.buckets import in_buckets  # noqa: E402
from mtbench.training.tasks.images import ImageTask  # noqa: E402
from mtbench.training.tasks.subwords import END  # noqa: E402
from mtbench.training.tasks.translation import TranslationTask  # noqa: E402
from mtbench.training.variants import Variant  # noqa: E402
from mtbench.words import by_kind  # noqa: E402

WAYS = ("unpadded", "plain", "compiled")
BLACK = 0.8
"""Of the pixels of noise."""
PAIRS = 40_000
"""Sentences of noise."""


def job_of(task: Task, variant: str, way: str, options: argparse.Namespace) -> Job:
    """That of the preset, with what the options change."""
    preset = preset_of(task, options.preset, epochs=1, iterations=options.steps, batch=options.batch)
    size = replace(preset.size, layers=options.layers or preset.size.layers)
    gpu = options.device == "cuda"
    (job,) = plan_jobs(
        Asked(
            task=task,
            data=options.data,
            preset_name=options.preset,
            preset=replace(preset, size=size),
            momenta=task.momenta,
            variants=(Variant.parse(variant),),
            seeds=(0,),
            kernels=Kernels(
                backends=by_kind("--backend", options.backend, ATTENTIONS),
                forms=by_kind("--form", options.form, ATTENTIONS),
                device=options.device,
                precision="bfloat16",
                capture=gpu,
                compiled=way == "compiled",
            ),
        )
    )
    return job


def noise(task: Task, job: Job) -> Data:
    """An epoch of a task whose data nobody named."""
    rng = np.random.default_rng(0)
    schedule = job.schedule
    steps, batch, longest = schedule.iterations, schedule.batch, schedule.seq_len
    if isinstance(task, ImageTask):
        shape = (steps, batch, longest)
        black = rng.random(shape) < BLACK
        return {"pixels": np.where(black, 0, rng.integers(0, 256, shape)).astype(np.uint8)}
    sizes = rng.integers(3, longest + 1, (PAIRS, 1)) * rng.uniform(0.5, 1.0, (PAIRS, 2))
    pairs = [
        tuple(rng.integers(END + 1, job.model.size.vocabulary, max(1, int(n))).tolist() for n in row)
        for row in sizes
    ]
    return in_buckets(pairs, longest, batch=batch, steps=steps, seed=0, epoch=0)


def opened(task: Task, job: Job, options: argparse.Namespace) -> tuple[Task, Data]:
    """The task and an epoch of its data, of the shapes of batch that have most steps."""
    if options.data is None and isinstance(task, (TranslationTask, ImageTask)):
        data = noise(task, job)
    else:
        task = task.open(options.data)
        for name, content in task.shared(job).items():
            (options.out / name).write_bytes(content)
        task = task.given(options.out)
        data = task.batches(job.schedule, job.model.size, seed=0, epoch=0)
    groups = sorted(grouped(data), key=lambda group: -len(next(iter(group.values()))))
    return task, groups[: options.shapes]


def measured(task: Task, job: Job, data: Data, profiled: bool) -> dict[str, Any]:
    """Milliseconds of every step but the first epoch's, which compiles and captures."""
    import torch

    from mtbench.training.step import Stepper
    from mtbench.training.trainer import attention_by
    from mtbench.transformer.fused import compile_parts

    torch.manual_seed(0)
    model = task.model(job.model, attention_by(job.kernels)).to(job.kernels.device)
    if job.kernels.compiled:
        compile_parts(model)
    stepper = Stepper(job, task, model)
    stepper.load(data)
    first = stepper.finish(stepper.start(1e-4))
    stepper.rewind()
    later = stepper.finish(stepper.start(1e-4))
    row = {
        "task": job.task,
        "variant": job.variant,
        "batch": job.schedule.batch,
        "shapes": [list(next(iter(group.values())).shape) for group in grouped(data)],
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_epoch_s": sum(first.seconds),
        "loss": later.loss[: len(later.seconds)],
        "step_ms": [1000 * s for s in later.seconds],
        "captured": later.captured,
        "kernels_ms": {},
    }
    if profiled:
        stepper.rewind()
        steps = len(later.seconds)
        row["kernels_ms"], row["launches"] = kernels(lambda: stepper.finish(stepper.start(1e-4)), steps)
    return row


def kernels(run: Any, steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Of each kernel milliseconds a step and how often it ran in one, by torch's profiler, those that take
    most first."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.time_range.elapsed_us() / 1000 / steps
            counts[event.name] += 1 / steps
    return dict(times.most_common()), dict(counts)


def told(row: dict[str, Any], task: Task, job: Job, rate: float | None, options: argparse.Namespace) -> str:
    """A line of a row, which gets what is in it."""
    ms = median(row["step_ms"])
    row["median_ms"], row["tokens_per_s"] = ms, job.schedule.tokens / ms * 1000
    row["share"] = None
    if rate and task.decoder:
        operations = import_part("reports.training_work").model_operations(job)
        row["share"] = operations * row["tokens_per_s"] / rate
    whole = task.presets[options.preset].schedule
    minutes = whole.epochs * whole.iterations * whole.batch / job.schedule.batch * ms / 60_000
    share = "" if row["share"] is None else f", {row['share']:.1%} of the card's rate"
    return (
        f"{row['task']} {row['variant']}, {row['way']}: {ms:.3f} ms a step, "
        f"{row['tokens_per_s'] / 1e6:.2f} M tokens/s{share}; {whole.epochs} epochs {minutes:.1f} min; "
        f"first {len(row['step_ms'])} steps {row['first_epoch_s']:.0f} s; loss {mean(row['loss']):.4f}"
    )


def main() -> None:
    """Print a line a variant and way, and the kernels of each."""
    parser = argparse.ArgumentParser(description="A training step of a task.")
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--preset", help="card where a task has that, else paper")
    parser.add_argument("--data", help="the task's folder; noise where there is none")
    parser.add_argument("--variant", default="momentum,momentum+adaptive,softmax")
    parser.add_argument("--ways", default="plain,compiled", help=f"of {', '.join(WAYS)}, with commas")
    parser.add_argument("--batch", type=int, help="of a step; the preset's")
    parser.add_argument("--layers", type=int, help="of the model; the preset's")
    parser.add_argument("--steps", type=int, default=30, help="of a round, of which there are three")
    parser.add_argument("--shapes", type=int, help="of batch, at most, as each takes time to compile; all")
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
    try:
        timed(framework, options)
    except BadInput as error:
        parser.error(str(error))


def timed(framework: Any, options: argparse.Namespace) -> None:
    """Every variant in every way.

    Raises:
        BadInput: an option that does not do.
    """
    task = load_task(options.task)
    options.preset = options.preset or ("card" if "card" in task.presets else "paper")
    ways = options.ways.split(",")
    if unknown := set(ways) - set(WAYS):
        raise BadInput(f"--ways {', '.join(sorted(unknown))}: known are {', '.join(WAYS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    reached: dict[str, Any] = {}
    if options.device == "cuda":
        from mtbench.frameworks.torch_rates import rates

        reached = dict(rates(("bfloat16",)))
    rate = reached.get("matmul_flop_per_s", {}).get("bfloat16")
    jobs = [
        (way, job_of(task, variant, way, options)) for variant in options.variant.split(",") for way in ways
    ]
    task, data = opened(task, jobs[0][1], options)
    from mtbench.transformer.linear import ALIGNED

    aligned = dict(ALIGNED)
    rows: list[dict[str, Any]] = []
    for way, job in jobs:
        ALIGNED.clear()
        ALIGNED.update({} if way == "unpadded" else aligned)
        row = {"way": way, **measured(task, job, data, profiled=options.device == "cuda")}
        print(told(row, task, job, rate, options), flush=True)
        for name, ms in list(row["kernels_ms"].items())[: options.kernels]:
            print(f"    {ms:8.4f} ms {row['launches'][name]:7.1f}x  {name[:100]}", flush=True)
        rows.append(row)
        framework.release()
        record = {"environment": environment(threads=4), "reached": reached, "rows": rows}
        # A run that is cut off has left what it measured.
        (options.out / "steps.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
