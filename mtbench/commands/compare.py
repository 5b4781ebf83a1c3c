"""The commands that set runs against each other: ``mtbench compare``, ``trend`` and ``noise``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mtbench.errors import BadInput
from mtbench.outputs import INTERRUPTED, dated, write
from mtbench.registry import import_part
from mtbench.words import names

__all__ = ["compare", "noise", "trend"]


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
            write(option, file, text(comparison))
    print_comparison(comparison, every=all_)
    raise typer.Exit(comparison.exit_code)


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
    write("--out", out, import_part("reports.trend_page").trend_html(trends))
    print_trends(trends, every=all_)
    typer.echo(f"trend: {out}")


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
        out = out or dated("noise")
        sides = [(out / f"pair-{pair + 1}" / "a", out / f"pair-{pair + 1}" / "b") for pair in range(pairs)]
        for folder in (folder for pair in sides for folder in pair):
            _measure_again(folder, preset, backend, launches, threads)
    floor = measure_floor(
        [compare_sides(read_side(one), read_side(other), effect_percent=effect) for one, other in sides]
    )
    if out is not None:
        write("--out", out / "noise.json", floor_json(floor))
        write("--out", out / "noise.md", floor_markdown(floor))
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
        names("--backend", backend),
        folder,
        threads=threads,
        arguments=sys.argv[1:],
        launches=launches,
    )
    if outcome.interrupted:
        typer.echo(f"\ninterrupted: what was measured is in {folder}", err=True)
        raise typer.Exit(INTERRUPTED)
