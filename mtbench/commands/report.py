"""The commands that draw what was measured: ``mtbench report``, ``figures`` and ``table``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtbench.errors import BadInput
from mtbench.outputs import write
from mtbench.registry import import_part
from mtbench.words import names

__all__ = ["figures", "report", "table"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="A run folder, or a profile's, or its file; or several runs, or files of pytest-benchmark, "
            "the baseline first.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page of several runs, or of a profile. [default: comparison.html; beside the profile]"
        ),
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="Of several runs: the smallest effect that matters, %. [default: 3]")
    ] = None,
    across_machines: Annotated[
        bool, typer.Option("--across-machines", help="Judge several runs though their machines differ.")
    ] = False,
) -> None:
    """Build a run's or a profile's page, or set runs side by side.

    One is made from its folder alone; of a profile its profile.json, under any name, is enough. Of several
    the first is the baseline, and each of the others is compared with it, as by `mtbench compare`; runs of
    machines that differ stand side by side and are not judged.
    """
    if len(runs) == 1:
        for option, value in {"--effect": effect, "--across-machines": across_machines or None}.items():
            if value is not None:
                raise BadInput(f"report {runs[0]} {option}: that is for two runs and more, and this is one")
        typer.echo(f"report: {_report_of_one(runs[0], out)}")
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
    write("--out", file, import_part("reports.comparison_page").comparison_html(sides, pairs))
    typer.echo(f"report: {file}")


def _report_of_one(place: Path, out: Path | None) -> Path:
    from mtbench.profile.record import is_profile, read_profile
    from mtbench.report import write_report

    if out is None:
        return write_report(place)
    if not place.exists():
        raise BadInput(f"report {place}: there is nothing there")
    if not is_profile(place):
        raise BadInput(f"report {place} --out: that is for two runs and more, or a profile")
    write("--out", out, import_part("reports.profile_page").profile_html(read_profile(place)))
    return out


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
    written = import_part("reports.figure_files").write_figures(
        folder, out, names("--format", format_), style, columns
    )
    count = sum(path.suffix == ".csv" for path in written)
    typer.echo(f"figures: {count} in {written[0].parent}")


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
    module = import_part("reports.table_text")
    texts: dict[str, str] = module.table_texts(
        folder, names("--format", format_), names("--metric", metric) or ()
    )
    for format_name, text in texts.items():
        if out is None:
            typer.echo(text)
            continue
        file = out if len(texts) == 1 else out.with_suffix(module.ENDINGS[format_name])
        write("--out", file, text)
        typer.echo(f"table: {file}")
