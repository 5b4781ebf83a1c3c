"""The commands. Each turns its words into the house's types and hands over; what goes wrong with the words is
one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mtbench import __version__
from mtbench.errors import BackendFailure, BadInput
from mtbench.words import floats, names, optional_names, whole_numbers

__all__ = ["app", "main"]

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    name="mtbench",
    help="How softmax, linear and momentum attention compare: speed, memory and agreement, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script: errors in the input become one line."""
    try:
        app()
    except (BadInput, BackendFailure) as error:
        print(f"mtbench: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mtbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


SIZES = "Takes commas (256,1024) and geometric ranges (256:16384:x2)."


@app.command()
def run(
    preset: Annotated[
        str | None,
        typer.Option(help="A named sweep: quick, default, gpu or long. Flags below replace its axes."),
    ] = None,
    attention: Annotated[str | None, typer.Option(help="softmax, linear, momentum. [default: all]")] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Names that `mtbench list` shows, or files such as ./mine.py. [default: all]"),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="parallel, chunked, recurrent, fused, sdpa, ... or all. [default: all]"),
    ] = None,
    seq_len: Annotated[str | None, typer.Option(help=f"{SIZES} [default: 256,1024]")] = None,
    batch: Annotated[str | None, typer.Option(help="[default: 1]")] = None,
    heads: Annotated[str | None, typer.Option(help="[default: 8]")] = None,
    head_dim: Annotated[str | None, typer.Option(help="[default: 64]")] = None,
    value_dim: Annotated[str | None, typer.Option(help="[default: head_dim]")] = None,
    kv_len: Annotated[
        str | None, typer.Option(help="Keys a sequence has; needs --no-causal. [default: seq_len]")
    ] = None,
    kv_heads: Annotated[str | None, typer.Option(help="Grouped heads. [default: heads]")] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Real keys of each batch entry; the rest is padding.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16. [default: float32]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda. [default: cpu]")] = None,
    mode: Annotated[str | None, typer.Option(help="forward, forward_backward. [default: forward]")] = None,
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--no-causal", help="A position sees no later one. [default: causal]"),
    ] = None,
    beta: Annotated[str | None, typer.Option(help="Momentum, in [0, 1). [default: 0.9]")] = None,
    gamma: Annotated[str | None, typer.Option(help="Step size, above 0. [default: 1.0]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the inputs. [default: 0]")] = None,
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
    host: Annotated[bool, typer.Option("--host", help="Record this machine's name.")] = False,
) -> None:
    """Sweep attentions over backends and sizes, and leave a folder with a report.

    Exit code: 0 when every row is ok, unsupported, unavailable or oom; 1 when one is wrong, crash, timeout or
    error; 2 for bad input; 130 after Ctrl-C, which keeps what was measured and writes the report.
    """
    from mtbench.sweep import command
    from mtbench.workloads import workload

    sweep = workload(preset).override(
        attention=names(attention),
        form=optional_names(form),
        seq_len=whole_numbers("--seq-len", seq_len),
        batch=whole_numbers("--batch", batch),
        heads=whole_numbers("--heads", heads),
        head_dim=whole_numbers("--head-dim", head_dim),
        value_dim=whole_numbers("--value-dim", value_dim),
        kv_len=whole_numbers("--kv-len", kv_len),
        kv_heads=whole_numbers("--kv-heads", kv_heads),
        lengths=whole_numbers("--lengths", lengths),
        dtype=names(dtype),
        device=names(device),
        mode=names(mode),
        causal=None if causal is None else (causal,),
        beta=floats("--beta", beta),
        gamma=floats("--gamma", gamma),
        seed=seed,
    )
    folder = out or Path(f"mtbench-run-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    outcome = command.run_sweep(
        sweep,
        names(backend),
        folder,
        threads=threads,
        timeout_s=timeout,
        memory_limit_gib=memory_limit,
        host=host,
        arguments=sys.argv[1:],
    )
    report_file = _reports().write_report(folder)
    typer.echo(f"\n{outcome.summary}\nreport: {report_file}")
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if outcome.failed else 0)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
) -> None:
    """Build a run's report, figures and exports again, from its folder alone."""
    typer.echo(f"report: {_reports().write_report(folder)}")


@app.command(name="list")
def list_() -> None:
    """What each backend does, what it does not and why, and what is available on this machine."""
    from mtbench.display import print_support
    from mtbench.registry import backend_names, load_backend
    from mtbench.support import support_of

    print_support([support_of(load_backend(name)) for name in backend_names()])


def _reports() -> Any:
    from mtbench.registry import import_part

    return import_part("reports.page")
