"""Training runs whose numbers are made up, for what reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbench.training.results import EpochRow, Trained, TrainingRun
from mtbench.training.settings import Job, Kernels, Schedule
from mtbench.training.tasks.copy import TASK
from mtbench.training.variants import DEFAULT_VARIANTS, Variant
from mtbench.transformer.config import ModelConfig

__all__ = ["examined_run", "made_run", "written"]

Numbers = tuple[float, float, float]
"""Held-out loss and accuracy at the end, and seconds an epoch."""

PAPER = TASK.presets["paper"]


def made_run(
    numbers: Mapping[str, Sequence[Numbers]] | None = None,
    *,
    schedule: Schedule | None = None,
    parallel: int = 1,
    statuses: Mapping[tuple[str, int], str] | None = None,
    header: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """A run of the paper's settings: by variant, the numbers of each seed. Its epochs have one step."""
    numbers = numbers or {
        name: [(0.01 * (n + 1) * (1 + 0.1 * seed), 0.999, 1.0 + 0.1 * n + 0.01 * seed) for seed in range(3)]
        for n, name in enumerate(DEFAULT_VARIANTS)
    }
    schedule = schedule or PAPER.schedule
    jobs = []
    for variant, seeds in numbers.items():
        for seed, (loss, accuracy, seconds) in enumerate(seeds):
            job = _job(variant, seed, schedule)
            status = (statuses or {}).get((variant, seed), "done")
            count = schedule.epochs if status == "done" else schedule.epochs // 2
            rows = tuple(_row(job, epoch, loss, accuracy, seconds) for epoch in range(count))
            reason = "" if status == "done" else f"why it is {status}"
            jobs.append(Trained(job=job, status=status, reason=reason, epochs=rows))
    plan = {
        "task": "copy",
        "preset": "paper",
        "parallel": parallel,
        "rows": [t.job.id for t in jobs],
        "jobs": [t.job.to_dict() for t in jobs],
    }
    outcomes = {t.job.id: {"status": t.status, "reason": t.reason, "parameters": 3_164_683} for t in jobs}
    made = {
        "kind": "training",
        "mtbench": "0",
        "command": ["mtbench", "train"],
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:14:05+00:00",
        "outcome": "complete",
        "plan": plan,
        "environment": {"cpu": {"model": "a CPU", "cores": 2}, "gpus": [], "threads": 1},
        "workers": {"torch on cpu": {"torch": "2.13"}},
        "jobs": outcomes,
        **(header or {}),
    }
    return TrainingRun(folder=Path("synthetic"), header=made, jobs=tuple(jobs))


def _job(variant: str, seed: int, schedule: Schedule) -> Job:
    try:
        found = Variant.parse(variant)
    except ValueError:  # a hostile name
        found = Variant("linear")
    return Job(
        task="copy",
        variant=variant,
        seed=seed,
        model=ModelConfig(
            size=replace(PAPER.size, max_len=schedule.seq_len),
            attention=found.attention,
            connection=found.connection,
            momenta=TASK.momenta,
        ),
        schedule=schedule,
        optimization=PAPER.optimization,
        kernels=Kernels(),
    )


def _row(job: Job, epoch: int, loss: float, accuracy: float, seconds: float) -> EpochRow:
    share = (epoch + 1) / job.schedule.epochs
    now = loss * math.exp(4 * (1 - share)) if math.isfinite(loss) else loss
    held_out = job.schedule.evaluates(epoch)
    return EpochRow(
        job=job.id,
        epoch=epoch,
        lr=job.optimization.lr_at(epoch),
        loss=(_rounded(now * 1.1),),
        metric=(_rounded(accuracy * share),),
        seconds=(seconds,),
        peak_memory_bytes=200 << 20,
        memory_method="how it was read",
        held_out_loss=now if held_out else None,
        held_out_metric=accuracy * share if held_out else None,
    )


def _rounded(value: float) -> float:
    """To the digits that a folder keeps of a step, which are all that a float32 has."""
    return float(f"{value:.9g}")


def written(run: TrainingRun, folder: Path) -> TrainingRun:
    """The run in a folder, read back."""
    from mtbench.training.folder import TrainingFolder

    with TrainingFolder.create(folder) as made:
        made.write_header(run.header)
        lines = b"".join(
            (json_line(row.to_line()) + "\n").encode() for trained in run for row in trained.epochs
        )
        (folder / "epochs.jsonl").write_bytes(lines)
    return TrainingRun.load(folder)


def json_line(line: Mapping[str, Any]) -> str:
    """As `TrainingFolder.append` writes it, which forces each to the disk."""
    import json

    return json.dumps(line, allow_nan=False)


def examined_run(scores: Mapping[str, Sequence[Mapping[str, float]]], *, parallel: int = 1) -> TrainingRun:
    """A run of the paper's settings of the refined translation: by variant, each seed's scores."""
    from mtbench.training.examined import Examined
    from mtbench.training.tasks.translation_refined import TASK as REFINED

    preset = REFINED.presets["paper"]
    run = made_run(
        {name: [(1.0, 0.5, 1.0)] * len(seeds) for name, seeds in scores.items()},
        schedule=replace(preset.schedule, epochs=2, evaluations=2),
        parallel=parallel,
    )
    jobs = []
    for trained in run:
        found = Examined(
            scores=scores[trained.job.variant][trained.job.seed],
            notes={"BLEU": "nrefs:1|<b>"},
            samples=({"source": "one <i>", "reference": "eins", "translation": f"of {trained.job.variant}"},),
        )
        model = replace(trained.job.model, size=preset.size, momenta=REFINED.momenta)
        job = replace(
            trained.job,
            task=REFINED.name,
            model=model,
            schedule=replace(preset.schedule, epochs=2, evaluations=2),
            optimization=preset.optimization,
        )
        epochs = (*trained.epochs[:-1], replace(trained.epochs[-1], examined=found, tokens=1000))
        jobs.append(replace(trained, job=job, epochs=epochs))
    header = {**run.header, "plan": {**run.header["plan"], "jobs": [t.job.to_dict() for t in jobs]}}
    return replace(run, jobs=tuple(jobs), header=header)
