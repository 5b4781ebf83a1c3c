"""The command ``mtbench run``: its words become a workload, which `mtbench.sweep.command` measures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mtbench.errors import BadInput
from mtbench.options import CaseWords, with_case
from mtbench.outputs import INTERRUPTED, dated
from mtbench.words import check_resumed, names, optional_names, whole_numbers

if TYPE_CHECKING:
    from mtbench.sweep.command import Outcome

__all__ = ["run"]

SIZES = "Takes commas (256,1024) and geometric ranges (256:16384:x2)."


@with_case
def run(
    *,
    preset: Annotated[
        str | None,
        typer.Option(help="A named sweep: quick, default, gpu, peers or long. Flags below replace its axes."),
    ] = None,
    attention: Annotated[str | None, typer.Option(help="softmax, linear, momentum. [default: all]")] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Names that `mtbench list` shows, or files such as ./mine.py. [default: all but the peers]"
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="parallel, chunked, recurrent, fused, sdpa, ... or all. [default: all]"),
    ] = None,
    seq_len: Annotated[str | None, typer.Option(help=f"{SIZES} [default: 256,1024]")] = None,
    case: CaseWords,
    world_size: Annotated[
        str | None,
        typer.Option(help="Devices that a sequence is split over: 1,2,4. [default: 1]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the run. [default: mtbench-run-TIME]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of every backend. [default: all CPUs]", min=1)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Most seconds for one row. [default: the preset's]")
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(help="Most GiB resident in a worker. [default: 0.9 of what is free]"),
    ] = None,
    launches: Annotated[
        int | None,
        typer.Option(help="Fresh processes every row is measured in; comparing wants 8. [default: 1]", min=1),
    ] = None,
    interleave: Annotated[
        bool | None,
        typer.Option(
            "--interleave/--by-backend",
            help="All backends in turn within a case, in a seeded order, or one after another. "
            "[default: interleave]",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder, as it was asked for; no other but --address."),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Record this machine's name.")] = False,
    executor: Annotated[
        str | None,
        typer.Option(help="local, or ray: every kind of machine of a Ray cluster. [default: local]"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster, HOST:PORT. [default: the one that runs here]")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="Only on nodes with this type of GPU, as Ray names it: H100, A100-80G.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(help="Seconds that rows wait for a node once none is left for them. [default: 60]"),
    ] = None,
    profiled: Annotated[
        str | None,
        typer.Option("--profile", help="Profile rows after all are timed: slowest:N or fastest:N."),
    ] = None,
) -> None:
    """Sweep attentions over backends and sizes, and leave a report.

    Exit code: 0 when every row is ok, unsupported, unavailable or oom; 1 when one is wrong, crash, timeout or
    error; 2 for bad input; 130 after Ctrl-C, which keeps what was measured and writes the report.
    """
    from mtbench.sweep import command
    from mtbench.sweep.executors import new_executor
    from mtbench.workloads import workload

    if resume is not None:
        check_resumed(("--address",))
        _conclude(command.resume_sweep(resume, address=address), resume)
    sweep = workload(preset).override(
        attention=names("--attention", attention),
        form=optional_names("--form", form),
        seq_len=whole_numbers("--seq-len", seq_len),
        world_size=whole_numbers("--world-size", world_size),
        **case.axes(),
    )
    folder = out or dated("run")
    if profiled is not None:
        _check_profiled(profiled, executor)
    outcome = command.run_sweep(
        sweep,
        names("--backend", backend),
        folder,
        threads=threads,
        timeout_s=timeout,
        memory_limit_gib=memory_limit,
        host=host,
        arguments=sys.argv[1:],
        launches=launches or 1,
        interleaved=interleave is not False,
        executor=new_executor(executor or "local", address, accelerator, wait),
    )
    if profiled is not None and not outcome.interrupted and not _profile(folder, profiled):
        outcome = replace(outcome, interrupted=True)
    _conclude(outcome, folder)


def _check_profiled(words: str, executor: str | None) -> None:
    """Before anything is measured."""
    from mtbench.profile.sweeping import choice

    choice(words)
    if executor not in (None, "local"):
        raise BadInput(f"--profile {words}: that is for rows of this machine, without --executor {executor}")


def _profile(folder: Path, words: str) -> bool:
    """Whether it went to its end: Ctrl-C ends it, and keeps the run and the profiles that are there."""
    from mtbench.profile.display import show_stages
    from mtbench.profile.sweeping import choice, profile_rows
    from mtbench.sweep.command import relative

    def complain(told: str) -> None:
        typer.echo(told, err=True)

    arguments = ["mtbench", *relative(sys.argv[1:])]
    try:
        with show_stages() as tell:
            made = profile_rows(folder, choice(words), command=arguments, tell=tell, complain=complain)
        typer.echo(f"profiles: {made} in {folder / 'profiles'}")
    except KeyboardInterrupt:
        typer.echo("profiling was interrupted; the run is whole", err=True)
        return False
    return True


def _conclude(outcome: Outcome, folder: Path) -> NoReturn:
    """One line, the report, and the exit code."""
    from mtbench.report import conclude

    conclude(outcome.summary, folder)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if outcome.failed else 0)
