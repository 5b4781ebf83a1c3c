"""How long translation takes by the length of its sentences, and from which length on softmax attention is
slower than linear and momentum attention.

``python scripts/time_translation.py --out DIR`` on a machine with a GPU. The models are those of the paper's
translation (5 layers of 278, 2 heads of 139, 8,000 subwords), with their first parameters and random symbols.
Three things are timed, of as many positions a batch at every length: reading a batch of sources and saying it
four times over (``refine``), writing a batch a symbol at a time, never ending early (``write``), and a
training step of the first, captured as a CUDA graph (``train``). Sentences fill half to all of a batch's
positions, drawn evenly. Attentions take turns, round by round; the figure is the median of the rounds but the
first. Refine and write are timed by the host's clock, the device's work waited for; a step as `mtbench train`
times it.

It prints a line a length, and ends with the length from which on each is faster than softmax. DIR gets
``times.json``, with every round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mtbench.frameworks import load_framework  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from mtbench.spec import ATTENTIONS  # noqa: E402
from mtbench.training.settings import Job, Kernels, Schedule  # noqa: E402
from mtbench.training.tasks.subwords import BEGIN, END  # noqa: E402
from mtbench.training.tasks.translation import TASK as WRITTEN  # noqa: E402
from mtbench.training.tasks.translation_refined import TASK as REFINED  # noqa: E402
from mtbench.training.tasks.translation_refined import TIMES  # noqa: E402
from mtbench.transformer.config import ModelConfig  # noqa: E402
from mtbench.words import by_kind, whole_numbers  # noqa: E402

STEPS = 8
"""Training steps of a round."""
WHAT = ("refine", "write", "train")
NEVER = -1
"""A symbol that is never said."""


def job_of(kind: str, length: int, options: argparse.Namespace) -> Job:
    """The job of a training step at that length."""
    paper = REFINED.presets["paper"]
    wide = {"layers": options.layers, "head_dim": options.head_dim}
    size = replace(paper.size, max_len=length, **wide)
    return Job(
        task=REFINED.name,
        variant=kind,
        seed=0,
        model=ModelConfig(size=size, attention=kind, momenta=REFINED.momenta),
        schedule=Schedule(epochs=1, iterations=STEPS, batch=max(1, options.tokens // length), seq_len=length),
        optimization=paper.optimization,
        kernels=Kernels(
            backends=by_kind("--backend", options.backend, ATTENTIONS),
            forms=by_kind("--form", options.form, ATTENTIONS),
            device=options.device,
            precision=options.precision,
            capture=options.device == "cuda",
        ),
    )


def sentences(job: Job) -> dict[str, Any]:
    """Random ones, of half to all of the positions."""
    rng = np.random.default_rng(0)
    steps, batch, width = job.schedule.iterations, job.schedule.batch, job.schedule.seq_len
    found: dict[str, Any] = {}
    for side in ("source", "target"):
        lengths = rng.integers(max(1, width // 2), width + 1, (steps, batch)).astype(np.int32)
        symbols = rng.integers(END + 2, job.model.size.vocabulary, (steps, batch, width)).astype(np.int32)
        found[side] = np.where(np.arange(width) < lengths[..., None], symbols, 0)
        found[f"{side}_lengths"] = lengths
    return found


def rounds_of(what: str, job: Job) -> Callable[[], float]:
    """A round, which returns its seconds: of a batch, or the median of some steps."""
    import torch

    from mtbench.training.step import Stepper
    from mtbench.training.trainer import attention_by
    from mtbench.transformer.generation import translate
    from mtbench.transformer.held import in_bfloat16

    device, attend = torch.device(job.kernels.device), attention_by(job.kernels)
    task = WRITTEN if what == "write" else REFINED
    torch.manual_seed(0)
    model = task.model(job.model, attend).to(device).eval()
    data = sentences(job)
    if what == "train":
        stepper = Stepper(job, task, model)
        stepper.load(data)

        def train() -> float:
            stepper.rewind()
            return median(stepper.finish(stepper.start(1e-3)).seconds)

        return train
    source, lengths = (torch.from_numpy(data[name][0]).to(device) for name in ("source", "source_lengths"))
    width = job.schedule.seq_len

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def decode() -> float:
        began = wait()
        half = job.kernels.precision == "bfloat16"
        with torch.no_grad(), in_bfloat16(model, device.type) if half else contextlib.nullcontext():
            if what == "refine":
                model.translated(source, lengths, width, TIMES)
            else:
                translate(model, source, lengths, begin=BEGIN, end=NEVER, most=width)
        return wait() - began

    return decode


def measured(what: str, length: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row an attention: seconds of every round but the first."""
    import torch

    rows: dict[str, dict[str, Any]] = {}
    rounds: dict[str, Callable[[], float]] = {}
    for kind in ATTENTIONS:
        job = job_of(kind, length, options)
        rows[kind] = {"what": what, "attention": kind, "seq_len": length, "batch": job.schedule.batch}
        rows[kind]["seconds"] = []
        try:
            rounds[kind] = rounds_of(what, job)
        except torch.OutOfMemoryError as error:
            rows[kind]["problem"] = str(error).splitlines()[0]
    for turn in range(options.rounds + 1):
        for kind in list(rounds):
            try:
                seconds = rounds[kind]()
            except torch.OutOfMemoryError as error:
                rows[kind]["problem"] = str(error).splitlines()[0]
                del rounds[kind]
                continue
            if turn:  # the first compiles and captures
                rows[kind]["seconds"].append(seconds)
    for row in rows.values():
        row["median_s"] = median(row["seconds"]) if row["seconds"] else None
    return list(rows.values())


def told(rows: list[dict[str, Any]]) -> str:
    """A length in a line: milliseconds, and how much longer softmax takes."""
    by = {row["attention"]: row["median_s"] for row in rows}
    parts = [f"{kind} {'–' if s is None else f'{1000 * s:.2f} ms'}" for kind, s in by.items()]
    others = [kind for kind in ("linear", "momentum") if by[kind] and by["softmax"]]
    parts += [f"softmax / {kind} {by['softmax'] / by[kind]:.2f}" for kind in others]
    return f"{rows[0]['what']} {rows[0]['batch']} x {rows[0]['seq_len']}: " + ", ".join(parts)


def turns(rows: list[dict[str, Any]]) -> list[str]:
    """From which length on each is faster than softmax, of those that were timed."""
    at = {(row["what"], row["seq_len"], row["attention"]): row["median_s"] for row in rows}
    found = []
    for what in dict.fromkeys(row["what"] for row in rows):
        lengths = sorted({n for w, n, _ in at if w == what})
        for kind in ("linear", "momentum"):
            faster = []
            for n in lengths:
                own, softmax = at[what, n, kind], at[what, n, "softmax"]
                faster.append(own is not None and (softmax is None or own < softmax))
            slower = [n for n, it_is in zip(lengths, faster, strict=True) if not it_is]
            later = [n for n in lengths if not slower or n > max(slower)]
            from_on = f"from {later[0]} positions on" if later else f"nowhere up to {lengths[-1]} positions"
            found.append(f"{what}: {kind} is faster than softmax {from_on}")
    return found


def main() -> None:
    """Print a line a length, and where it turns."""
    parser = argparse.ArgumentParser(description="Translation by length.")
    parser.add_argument("--what", default=",".join(WHAT))
    parser.add_argument("--seq-len", default="16:2048:x2")
    parser.add_argument("--tokens", type=int, default=16384, help="positions of a batch, at every length")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--head-dim", type=int, default=139, help="144 says what odd rows cost")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--backend", default="triton")
    parser.add_argument("--form", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    framework = load_framework("torch")
    framework.start(options.device, 4)
    if problem := framework.device_problem(options.device):
        parser.error(problem)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {name: x for name, x in vars(options).items() if name != "out"}
    rows: list[dict[str, Any]] = []
    for what in options.what.split(","):
        for length in whole_numbers("--seq-len", options.seq_len) or ():
            found = measured(what, length, options)
            rows += found
            print(told(found), flush=True)
            framework.release()
            record = {"environment": environment(threads=4), "arguments": settings, "rows": rows}
            (options.out / "times.json").write_text(json.dumps(record, indent=1) + "\n")
    for line in turns(rows):
        print(line)


if __name__ == "__main__":
    main()
