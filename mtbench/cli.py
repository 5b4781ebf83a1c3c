"""The commands. Each turns its words into the house's types and hands over; what goes wrong with the words is
one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mtbench import __version__, options
from mtbench.errors import BackendFailure, BadInput, StorageError
from mtbench.generation.cli import generate
from mtbench.profile.cli import profile
from mtbench.training.cli import train
from mtbench.words import floats, names, optional_names, whole_numbers

if TYPE_CHECKING:
    from mtbench.sweep.command import Outcome

__all__ = ["app", "main"]

BAD_INPUT = 2
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""A disk that takes no more, which is nobody's mistake and deserves one line."""
INTERRUPTED = 130

app = typer.Typer(
    name="mtbench",
    help="How softmax, linear and momentum attention compare: speed, memory and agreement, measured.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # With markup every [default: ...] would be taken for some and not shown, and --help would import rich.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What is wrong with options and arguments; typer has a click of its own or not, by its version."""


def main() -> None:
    """The console script: errors in the input become one line."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C outside of a sweep
        print("mtbench: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "mtbench"
        text = " ".join(error.format_message().split()).rstrip(".")
        print(f"mtbench: {text}: `{command} --help` has what there is", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"mtbench: {where}{error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except (BadInput, BackendFailure, StorageError) as error:
        print(f"mtbench: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mtbench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(BAD_INPUT)


SIZES = "Takes commas (256,1024) and geometric ranges (256:16384:x2)."


@app.command()
def run(
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
    batch: options.Batch = None,
    heads: options.Heads = None,
    head_dim: options.HeadDim = None,
    value_dim: options.ValueDim = None,
    kv_len: options.KvLen = None,
    kv_heads: options.KvHeads = None,
    lengths: options.Lengths = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    mode: options.Mode = None,
    causal: options.Causal = None,
    beta: options.Beta = None,
    gamma: options.Gamma = None,
    world_size: Annotated[
        str | None,
        typer.Option(help="Devices that a sequence is split over: 1,2,4. [default: 1]"),
    ] = None,
    seed: options.Seed = None,
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
    from mtbench.sweep.executor import new_executor
    from mtbench.workloads import workload

    if resume is not None:
        words = [word for word in sys.argv[2:] if word.startswith("--")]
        given = [word for word in words if not word.startswith(("--resume", "--address"))]
        if given:
            raise BadInput(f"--resume goes on as the run was asked for: leave out {', '.join(given)}")
        _conclude(command.resume_sweep(resume, address=address), resume)
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
        world_size=whole_numbers("--world-size", world_size),
        seed=seed,
    )
    folder = out or Path(f"mtbench-run-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if profiled is not None:
        _check_profiled(profiled, executor)
    outcome = command.run_sweep(
        sweep,
        names(backend),
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
    from mtbench.report import write_report

    typer.echo(f"\n{outcome.summary}")
    typer.echo(f"report: {write_report(folder)}")
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if outcome.failed else 0)


app.command()(train)
app.command()(generate)
app.command()(profile)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="A run folder; or several runs, or files of pytest-benchmark, the baseline first.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page of several runs. [default: comparison.html]")
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="Of several runs: the smallest effect that matters, %. [default: 3]")
    ] = None,
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Judge several runs though their machines differ.")
    ] = False,
) -> None:
    """Build a run's report again, or set several runs side by side.

    One is made from its folder alone. Of several the first is the baseline, and each of the others is
    compared with it, as by `mtbench compare`; runs of machines that differ stand side by side and are not
    judged.
    """
    if len(runs) == 1:
        given = {"--out": out, "--effect": effect, "--across-machines": across_machines or None}
        if wrong := [option for option, value in given.items() if value is not None]:
            raise BadInput(f"report {runs[0]} {wrong[0]}: that is for two runs and more, and this is one")
        from mtbench.report import write_report

        typer.echo(f"report: {write_report(runs[0])}")
        return
    from mtbench.compare import read_side, set_beside
    from mtbench.compare.verdicts import EFFECT_PERCENT

    sides = [read_side(run) for run in runs]
    pairs = set_beside(
        sides,
        effect_percent=EFFECT_PERCENT if effect is None else effect,
        across_machines=across_machines,
    )
    file = out or Path("comparison.html")
    _write("--out", file, _reports("comparison_page").comparison_html(sides, pairs))
    typer.echo(f"report: {file}")


@app.command()
def figures(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    format_: Annotated[str, typer.Option("--format", help="pdf, svg, png; several with commas.")] = "pdf,svg",
    style: Annotated[
        str, typer.Option(help="paper (no title, serif, embedded fonts) or report (as in report.html).")
    ] = "paper",
    columns: Annotated[int, typer.Option(help="Width on paper: 1 column (3.3 in) or 2 (7 in).")] = 2,
    out: Annotated[
        Path | None, typer.Option(help="A folder for them. [default: figures-STYLE in the run's]")
    ] = None,
) -> None:
    """Write every figure of a report, with its data and a caption.

    The data is a .csv beside it, the caption a .txt.
    """
    written = _reports("figure_files").write_figures(folder, out, names(format_), style, columns)
    count = sum(path.suffix == ".csv" for path in written)
    typer.echo(f"figures: {count} in {written[0].parent}")


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    format_: Annotated[str, typer.Option("--format", help="markdown, latex, or both.")] = "markdown",
    metric: Annotated[
        str | None,
        typer.Option(help="wall, device, memory, error; several with commas. [default: the ranked clocks]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file; of two formats, the name before .md and .tex. [stdout]")
    ] = None,
) -> None:
    """Write medians with their 95% intervals as tables.

    A row is a case, a column a backend's form.
    """
    module = _reports("table_text")
    texts: dict[str, str] = module.table_texts(folder, names(format_), names(metric) or ())
    for format_name, text in texts.items():
        if out is None:
            typer.echo(text)
            continue
        file = out if len(texts) == 1 else out.with_suffix(module.ENDINGS[format_name])
        _write("--out", file, text)
        typer.echo(f"table: {file}")


@app.command()
def compare(
    a: Annotated[
        Path,
        typer.Argument(
            help="The baseline: a run folder, pytest-benchmark's JSON, or a folder of such files."
        ),
    ],
    b: Annotated[Path, typer.Argument(help="The candidate. B / A over 1 is slower.")],
    effect: Annotated[float, typer.Option(help="The smallest effect that matters, %.")] = 3.0,
    markdown: Annotated[Path | None, typer.Option(help="Write it for a pull request, too.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write every figure, too.")] = None,
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Compare though the machines differ.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Show the cases that are the same, too.")] = False,
) -> None:
    """Compare two runs case by case: slower, faster, same or unsure.

    Exit code: 0 when nothing is slower; 1 when a case is, or worked in A and fails in B; 3 when every case is
    unsure; 2 for bad input, and for machines that differ.
    """
    from mtbench.compare import compare_sides, comparison_json, comparison_markdown, read_side
    from mtbench.comparison_display import print_comparison

    comparison = compare_sides(
        read_side(a), read_side(b), effect_percent=effect, across_machines=across_machines
    )
    for option, file, text in (
        ("--markdown", markdown, comparison_markdown),
        ("--json", json_, comparison_json),
    ):
        if file is not None:
            _write(option, file, text(comparison))
    print_comparison(comparison, every=all_)
    raise typer.Exit(comparison.exit_code)


@app.command()
def trend(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Runs, or files of pytest-benchmark, in any order."),
    ],
    effect: Annotated[float, typer.Option(help="The smallest effect that matters, %.")] = 3.0,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("trend.html"),
    all_: Annotated[bool, typer.Option("--all", help="Show the cases that did not change, too.")] = False,
) -> None:
    """Draw many runs over commits, and mark where a case changed.

    Runs of one machine make one line, in the order of their commits' dates.
    """
    from mtbench.trend import read_runs, trend_of
    from mtbench.trend_display import print_trends

    trends = trend_of(read_runs(runs), effect_percent=effect)
    _write("--out", out, _reports("trend_page").trend_html(trends))
    print_trends(trends, every=all_)
    typer.echo(f"trend: {out}")


@app.command()
def noise(
    a: Annotated[Path | None, typer.Argument(help="A run folder, to measure nothing again.")] = None,
    b: Annotated[Path | None, typer.Argument(help="Another, of the same code.")] = None,
    launches: Annotated[int, typer.Option(help="Of every row of every run; comparing wants 8.", min=3)] = 8,
    pairs: Annotated[int, typer.Option(help="Pairs of runs, one run after the other.", min=1)] = 1,
    preset: Annotated[str, typer.Option(help="What is measured.")] = "quick",
    backend: Annotated[str | None, typer.Option(help="As for `mtbench run`. [default: all]")] = None,
    threads: Annotated[int | None, typer.Option(help="As for `mtbench run`.", min=1)] = None,
    effect: Annotated[float, typer.Option(help="The smallest effect that matters, %.")] = 3.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of noise.json, noise.md and the runs. [default: mtbench-noise-TIME]"),
    ] = None,
) -> None:
    """Measure how far runs of the same code differ on this machine.

    And so what a comparison could find on it. With two run folders it measures nothing, and writes only where
    --out says.
    """
    from mtbench.compare import compare_sides, floor_json, floor_markdown, measure_floor, read_side
    from mtbench.comparison_display import print_floor

    if a is not None and b is None:
        raise BadInput(f"noise {a}: a second run of the same code is missing")
    if a is not None and b is not None:
        sides = [(a, b)]
    else:
        out = out or Path(f"mtbench-noise-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        sides = [(out / f"pair-{pair + 1}" / "a", out / f"pair-{pair + 1}" / "b") for pair in range(pairs)]
        for folder in (folder for pair in sides for folder in pair):
            _measure_again(folder, preset, backend, launches, threads)
    floor = measure_floor(
        [compare_sides(read_side(one), read_side(other), effect_percent=effect) for one, other in sides]
    )
    if out is not None:
        _write("--out", out / "noise.json", floor_json(floor))
        _write("--out", out / "noise.md", floor_markdown(floor))
    print_floor(floor)
    if out is not None:
        typer.echo(f"noise: {out / 'noise.md'}")


def _measure_again(
    folder: Path, preset: str, backend: str | None, launches: int, threads: int | None
) -> None:
    """One run of a noise floor."""
    from mtbench.sweep import command
    from mtbench.workloads import workload

    outcome = command.run_sweep(
        workload(preset),
        names(backend),
        folder,
        threads=threads,
        arguments=sys.argv[1:],
        launches=launches,
    )
    if outcome.interrupted:
        typer.echo(f"\ninterrupted: what was measured is in {folder}", err=True)
        raise typer.Exit(INTERRUPTED)


def _write(option: str, file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{option} {file} cannot be written: {error.strerror}") from error


@app.command(name="list")
def list_() -> None:
    """Show what each backend does here, what it does not, and why."""
    from mtbench.display import print_support
    from mtbench.registry import backend_names, load_backend
    from mtbench.support import support_of

    print_support([support_of(load_backend(name)) for name in backend_names()])


def _reports(module: str = "page") -> Any:
    from mtbench.registry import import_part

    return import_part(f"reports.{module}")
