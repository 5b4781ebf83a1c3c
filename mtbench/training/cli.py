"""The command ``mtbench train``: its words become a plan, which `mtbench.training.command` carries out."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtbench.errors import BadInput
from mtbench.outputs import INTERRUPTED, dated
from mtbench.words import by_kind, check_above_0, check_resumed, names

if TYPE_CHECKING:
    from mtbench.training.command import Asked

__all__ = ["train"]

CUT_OFF = 3
"""Exit code where the time limit was reached."""


def train(
    task: Annotated[
        str,
        typer.Option(
            help="What is learnt: copy, listops, text, pathfinder, translation, translation-refined, digits, "
            "mnist, cifar10."
        ),
    ] = "copy",
    data: Annotated[
        Path | None, typer.Option(help="The folder of a task's data, where it does not make its own.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="The task's sizes: paper, short, or others that a task has.")
    ] = "paper",
    variant: Annotated[
        str | None,
        typer.Option(
            help="ATTENTION or ATTENTION+CONNECTION, several with commas. Attentions: softmax, linear, "
            "momentum, momentum-released, linear-bare, momentum-bare. Connections: momentum, "
            "momentum-released, adaptive, adaptive-released. [default: the task's, such as the paper's five "
            "and momentum-released]"
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="Instead of --variant, together with --connection: each attention with the plain "
            "connection, and momentum attention with each of the others."
        ),
    ] = None,
    connection: Annotated[str | None, typer.Option(help="See --attention; none is the plain one.")] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="A backend of torch that `mtbench list` shows; of one attention by softmax=NAME, "
            "as in softmax=sdpa,triton."
        ),
    ] = "torch-eager",
    form: Annotated[
        str | None,
        typer.Option(help="A form of the backend, in the same way. [default: its first that does it]"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str, typer.Option(help="float32; tf32 for its matrix products; bfloat16 by autocast.")
    ] = "float32",
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture", help="Whether a step is one CUDA graph. [default: on device cuda]"
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Fuse what is not attention by torch.compile."),
    ] = False,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="The first of the seeds.", min=0)] = 0,
    parallel: Annotated[int, typer.Option(help="Trainings side by side on a device.", min=1)] = 1,
    gpus: Annotated[
        int | None,
        typer.Option(
            help="GPUs that trainings are spread over, each with --parallel of them. [default: 1]", min=1
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of each training. [default: all CPUs over those side by side]", min=1),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="[default: the preset's]")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps an epoch. [default: the preset's]")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences a step. [default: the preset's]")] = None,
    seq_len: Annotated[int | None, typer.Option(help="[default: the preset's]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. [default: the preset's]")] = None,
    beta: Annotated[
        float | None, typer.Option(help="The attention's momentum. [default: the task's]")
    ] = None,
    gamma: Annotated[float | None, typer.Option(help="Its step size. [default: the task's]")] = None,
    connection_momentum: Annotated[
        float | None, typer.Option(help="Of the fixed momentum connection. [default: the task's]")
    ] = None,
    connection_step: Annotated[
        float | None, typer.Option(help="Step size of the released connections. [default: the task's]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the run. [default: mtbench-train-TIME]")
    ] = None,
    checkpoint_every: Annotated[
        float, typer.Option(help="Least seconds between two checkpoints of a training.")
    ] = 30.0,
    timeout: Annotated[float, typer.Option(help="Most seconds for one epoch.")] = 600.0,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds after which all save a checkpoint and leave, to be gone on with."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder, as it was asked for; with --time-limit and --gpus alone."
        ),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Record this machine's name.")] = False,
) -> None:
    """Train the momentum transformer on a task, and leave a report.

    Its rivals too, several seeds each.

    Exit code: 0 when every training is done; 1 when one diverged, crashed, ran out of memory or time; 2 for
    bad input; 3 when the time limit cut it off, and 130 after Ctrl-C: both leave checkpoints to go on from.
    """
    from mtbench.report import conclude
    from mtbench.training import command

    check_above_0("--timeout", timeout)
    for option, value in (("--checkpoint-every", checkpoint_every), ("--time-limit", time_limit)):
        if value is not None and not 0 <= value < math.inf:
            raise BadInput(f"{option} {value}: must be a finite number, and not negative")
    if resume is not None:
        check_resumed(("--time-limit", "--gpus"))
        folder, outcome = resume, command.resume_training(resume, gpus=gpus, time_limit_s=time_limit)
    else:
        asked = _asked(
            task,
            preset,
            data=None if data is None else str(data),
            variants=(
                names("--variant", variant),
                names("--attention", attention),
                names("--connection", connection),
            ),
            changes={
                "epochs": epochs,
                "iterations": iterations,
                "batch": batch,
                "seq_len": seq_len,
                "lr": lr,
            },
            momenta={
                "beta": beta,
                "gamma": gamma,
                "connection": connection_momentum,
                "step": connection_step,
                "adaptive_step": connection_step,
            },
            seeds=tuple(range(seed, seed + seeds)),
            kernels={
                "backends": backend,
                "forms": form,
                "device": device,
                "precision": precision,
                "capture": device == "cuda" if capture is None else capture,
                "compiled": compiled,
            },
            threads=threads,
            side_by_side=parallel * (gpus or 1),
        )
        folder = out or dated("train")
        outcome = command.run_training(
            asked,
            folder,
            parallel=parallel,
            gpus=gpus or 1,
            every_s=checkpoint_every,
            timeout_s=timeout,
            time_limit_s=time_limit,
            host=host,
            arguments=sys.argv[1:],
        )
    conclude(outcome.summary, folder)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(1)
    if outcome.cut_off:
        typer.echo(f"go on with: mtbench train --resume {folder}")
        raise typer.Exit(CUT_OFF)


def _asked(
    task_name: str,
    preset_name: str,
    *,
    data: str | None,
    variants: tuple[tuple[str, ...] | None, ...],
    changes: dict[str, int | float | None],
    momenta: dict[str, float | None],
    seeds: tuple[int, ...],
    kernels: dict[str, str | bool | None],
    threads: int | None,
    side_by_side: int,
) -> Asked:
    """The words, checked."""
    from mtbench.measure.environment import cpus
    from mtbench.spec import ATTENTIONS, DEVICES
    from mtbench.training.command import Asked, preset_of
    from mtbench.training.settings import Kernels
    from mtbench.training.tasks import load_task
    from mtbench.training.variants import parse_variants, product

    found = load_task(task_name).open(data)
    named, attentions, connections = variants
    if named and (attentions or connections):
        raise BadInput("--variant names both: leave out --attention and --connection")
    chosen = (
        product(attentions, connections)
        if attentions or connections
        else parse_variants(named or found.variants)
    )
    device = str(kernels["device"])
    if device not in DEVICES:
        raise BadInput(f"unknown device {device!r}: known: {', '.join(DEVICES)}")
    backends, forms = kernels["backends"], kernels["forms"]
    return Asked(
        task=found,
        data=None if data is None else os.path.relpath(data),
        preset_name=preset_name,
        preset=preset_of(found, preset_name, **changes),
        momenta=replace(found.momenta, **{name: x for name, x in momenta.items() if x is not None}),
        variants=chosen,
        seeds=seeds,
        kernels=Kernels(
            backends=by_kind("--backend", str(backends), ATTENTIONS),
            forms=by_kind("--form", None if forms is None else str(forms), ATTENTIONS),
            device=device,
            precision=kernels["precision"],  # type: ignore[arg-type]
            capture=bool(kernels["capture"]),
            compiled=bool(kernels["compiled"]),
            threads=threads or max(1, cpus() // side_by_side),
        ),
    )
