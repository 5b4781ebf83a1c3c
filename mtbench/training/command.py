"""``mtbench train``, from checked words to a finished folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from mtbench import __version__
from mtbench.backend import refuse_interpreted
from mtbench.errors import BadInput, nearest
from mtbench.measure.environment import cpus, device_problem, environment, visible_gpus
from mtbench.registry import load_backend
from mtbench.spec import DEVICES, Mode
from mtbench.support import support_of
from mtbench.sweep.code import fingerprints
from mtbench.sweep.command import relative
from mtbench.sweep.header import check_same
from mtbench.training.display import show_training
from mtbench.training.folder import TrainingFolder
from mtbench.training.results import KIND, TrainingRun
from mtbench.training.runner import Settings, TrainingRunner
from mtbench.training.settings import Job, Kernels, Preset
from mtbench.training.tasks import Task, load_task
from mtbench.training.variants import Variant
from mtbench.transformer.backends import model_backend, model_form
from mtbench.transformer.config import ModelConfig, Momenta

__all__ = ["Asked", "Outcome", "plan_jobs", "preset_of", "resume_training", "run_training"]

DECIDING = (
    *("spec.py", "inputs.py", "frameworks", "measure/memory.py", "transformer"),
    *(f"training/{name}.py" for name in ("checkpoint", "optimizer", "settings", "step", "trainer")),
    "training/tasks",
)
"""The files that decide what is learnt and how it is timed."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be trained, all of it checked."""

    task: Task
    preset_name: str
    preset: Preset
    """With what was given in place of its own."""
    momenta: Momenta
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    kernels: Kernels
    data: str | None = None
    """The folder of the task's data, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training run ended."""

    interrupted: bool
    cut_off: bool
    """By the time limit: it can be gone on with."""
    counts: Mapping[str, int]

    @property
    def failed(self) -> bool:
        """Whether some job came to another end than its last epoch, or being told to leave."""
        return any(self.counts.get(status) for status in ("diverged", "crash", "timeout", "oom", "error"))

    @property
    def summary(self) -> str:
        """Jobs by status, in one line."""
        parts = [f"{count} {status}" for status, count in self.counts.items()]
        lead = "interrupted: " if self.interrupted else "the time limit is reached: " if self.cut_off else ""
        return lead + ", ".join(parts)


def preset_of(task: Task, name: str, **changes: Any) -> Preset:
    """A task's preset with some of its numbers changed; None is no change. `seq_len` is the data's and the
    model's.

    Raises:
        BadInput: an unknown preset, or a number that does not do.
    """
    if name not in task.presets:
        raise BadInput(f"unknown preset {name!r} of task {task.name}: {nearest(name, task.presets)}")
    preset = task.presets[name]
    given = {key: value for key, value in changes.items() if value is not None}
    lr = given.pop("lr", preset.optimization.lr)
    schedule = replace(preset.schedule, **given)
    size = replace(preset.size, max_len=schedule.seq_len)
    task.check(size, schedule)
    return replace(preset, size=size, schedule=schedule, optimization=replace(preset.optimization, lr=lr))


def plan_jobs(asked: Asked) -> list[Job]:
    """The jobs, seed by seed: a run that is cut off has as many of each variant.

    Raises:
        BadInput: a backend that does not do a variant's attention, or is only interpreted; the message has
            its declared reason.
    """
    jobs = []
    for seed in asked.seeds:
        for variant in asked.variants:
            model = ModelConfig(
                size=asked.preset.size,
                attention=variant.attention,
                connection=variant.connection,
                momenta=asked.momenta,
            )
            job = Job(
                task=asked.task.name,
                variant=variant.name,
                seed=seed,
                model=model,
                schedule=asked.preset.schedule,
                optimization=asked.preset.optimization,
                kernels=asked.kernels,
                data=asked.data,
            )
            _check_kernels(job, asked.task)
            jobs.append(job)
    return jobs


def _check_kernels(job: Job, task: Task) -> None:
    """Whether the backends say that they do what the job needs: asked of their declarations, no framework."""
    modes: tuple[Mode, ...] = ("forward", "forward_backward")
    for case in task.cases(job):
        backend = model_backend(job.kernels.backend(case.spec.kind))
        why, instead = "too slowly to train with", "a backend that runs on a CPU, such as torch-eager"
        refuse_interpreted(backend, case.device, why=why, instead=instead)
        for mode in modes:
            model_form(backend, case.replace(mode=mode), job.kernels.form(case.spec.kind))


def run_training(
    asked: Asked,
    folder: Path,
    *,
    parallel: int = 1,
    gpus: int = 1,
    every_s: float = 30.0,
    timeout_s: float = 600.0,
    time_limit_s: float | None = None,
    host: bool = False,
    arguments: Sequence[str] = (),
) -> Outcome:
    """Check everything that can be checked, create the folder, and train.

    Raises:
        BadInput: before anything is written.
        StorageError: an epoch could not be written; those before it are whole.
    """
    jobs = plan_jobs(asked)
    _check_device(asked.kernels, gpus)
    shared = asked.task.shared(jobs[0])
    header = {
        "kind": KIND,
        "mtbench": __version__,
        "command": ["mtbench", *relative(arguments)],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "outcome": "running",
        "plan": {
            "task": asked.task.name,
            "preset": asked.preset_name,
            "why": asked.preset.why,
            "parallel": parallel,
            "gpus": gpus,
            "every_s": every_s,
            "timeout_s": timeout_s,
            "rows": [job.id for job in jobs],
            "jobs": [job.to_dict() for job in jobs],
        },
        "data": dict(asked.task.fingerprints()),
        "environment": environment(threads=asked.kernels.threads, host=host),
        "code": _code(jobs),
        "workers": {},
        "jobs": {},
        "support": [support_of(load_backend(name)) for name in _backends(jobs)],
    }
    with TrainingFolder.create(folder) as made:
        made.write_header(header)
        made.share(shared)
        return _trained(made, header, time_limit_s)


def resume_training(folder: Path, *, gpus: int | None = None, time_limit_s: float | None = None) -> Outcome:
    """Go on with a run that was cut off: each job from its checkpoint, over as many GPUs as before where
    `gpus` does not say.

    Raises:
        BadInput: there is no training run, another process is writing it, or the machine or the code has
        changed. StorageError: as `run_training`.
    """
    found, run = TrainingFolder.resume(folder)
    with found:
        jobs = [trained.job for trained in run]
        header = dict(run.header)
        if gpus is not None:
            header["plan"] = {**header["plan"], "gpus": gpus}
        _check_device(jobs[0].kernels, header["plan"].get("gpus", 1))
        task = load_task(jobs[0].task).open(jobs[0].data)
        if dict(task.fingerprints()) != header.get("data", {}):
            raise BadInput(f"the data of task {task.name} has changed since: put back what was there")
        now = {
            "environment": environment(threads=jobs[0].kernels.threads),
            "code": _code(jobs),
            "plan": {"rows": [job.id for job in jobs]},
        }
        check_same(header, now)
        return _trained(found, header, time_limit_s)


def _trained(folder: TrainingFolder, header: dict[str, Any], time_limit_s: float | None) -> Outcome:
    plan = header["plan"]
    gpus = plan.get("gpus", 1)  # older runs do not say
    settings = Settings(
        parallel=plan["parallel"],
        gpus=visible_gpus()[:gpus] if gpus > 1 else (),
        every_s=plan["every_s"],
        timeout_s=plan["timeout_s"],
        memory_limit_bytes=int(0.9 * psutil.virtual_memory().available / (plan["parallel"] * gpus)),
        time_limit_s=time_limit_s,
    )
    interrupted = cut_off = False
    with show_training() as progress:
        try:
            run = TrainingRun.load(folder.folder)
            cut_off = TrainingRunner(folder, header, run, settings, progress).run()
        except KeyboardInterrupt:
            interrupted = True
    counts = Counter(trained.status for trained in TrainingRun.load(folder.folder))
    return Outcome(interrupted=interrupted, cut_off=cut_off, counts=dict(counts))


def _backends(jobs: Sequence[Job]) -> list[str]:
    """Those that some job uses, as they were asked for."""
    kinds = [(job, job.model.spec(causal=causal).kind) for job in jobs for causal in (True, False)]
    return list(dict.fromkeys(job.kernels.backend(kind) for job, kind in kinds))


def _code(jobs: Sequence[Job]) -> dict[str, str]:
    return fingerprints(_backends(jobs), DECIDING)


def _check_device(kernels: Kernels, gpus: int) -> None:
    if problem := device_problem(kernels.device):
        there = [name for name in DEVICES if device_problem(name) is None]
        raise BadInput(f"device {kernels.device!r} is not there: {problem}; there is: {', '.join(there)}")
    if gpus > 1 and kernels.device != "cuda":
        raise BadInput(f"--gpus {gpus}: trainings on device {kernels.device} have no GPU; leave it out")
    seen = len(visible_gpus())
    if gpus > max(1, seen):
        raise BadInput(
            f"--gpus {gpus}: this process sees {seen}; ask for no more, or let it see them "
            "(CUDA_VISIBLE_DEVICES)"
        )
    if kernels.capture and kernels.device != "cuda":
        raise BadInput("--capture: a CUDA graph is captured on device cuda; leave it out on a CPU")
    if kernels.threads > cpus():
        raise BadInput(f"--threads {kernels.threads}: this process may use {cpus()} CPUs")
