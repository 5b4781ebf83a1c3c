"""`mtbench table`: tables of medians as Markdown and as LaTeX."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from mtbench.errors import BadInput, nearest
from mtbench.results import Run

from . import header
from .captions import hardware, versions
from .escapes import latex, markdown
from .medians import METRICS, Entry, MedianTable, Metric, median_tables

__all__ = ["ENDINGS", "table_texts", "tables_latex", "tables_markdown"]

Format = Literal["markdown", "latex"]
ENDINGS: Mapping[Format, str] = {"markdown": ".md", "latex": ".tex"}
BOLD = "Bold: the smallest of a row"
LESS = "its form does less than the attention, and is compared with nothing"


def table_texts(
    folder: Path | str, formats: Sequence[str] = ("markdown",), metrics: Sequence[str] = ()
) -> dict[Format, str]:
    """The tables of the run in `folder` in each format. Metrics are ``wall`` and ``device`` (ms), ``memory``
    (MiB) and ``error`` (a ratio); none named are the clocks that each part of the run is ranked by.

    Raises:
        BadInput: there is no run, a format or metric is unknown, or no row has such a value.
    """
    wanted = [_known("--format", name, get_args(Format)) for name in formats]
    measured = [_metric(name) for name in metrics]
    run = Run.load(folder)
    tables = median_tables(list(run), measured)
    for metric in measured:
        if not median_tables(list(run), [metric]):
            others = [m for m in METRICS if median_tables(list(run), [m])]
            raise BadInput(
                f"--metric {metric}: no row of {run.folder} has it; "
                f"there is: {', '.join(others) if others else 'nothing'}"
            )
    if not tables:
        raise BadInput(
            f"{run.folder} has no row with a time: --metric memory or --metric error may have more"
        )
    writers: Mapping[str, Callable[[Run, Sequence[MedianTable]], str]] = {
        "markdown": tables_markdown,
        "latex": tables_latex,
    }
    return {name: writers[name](run, tables) for name in ENDINGS if name in wanted}


def _known(option: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise BadInput(f"{option} {value}: {nearest(value, known)}")
    return value


def _metric(name: str) -> Metric:
    for metric in METRICS:
        if metric == name:
            return metric
    raise BadInput(f"--metric {name}: {nearest(name, METRICS)}")


def _about(run: Run) -> list[str]:
    return [f"{hardware(run)}.", f"{versions(run)}.", f"Measured {header.when(run)}."]


def tables_markdown(run: Run, tables: Sequence[MedianTable]) -> str:
    """The tables one after another, what was measured on first."""
    lines = [markdown(" ".join(_about(run))), ""]
    for table in tables:
        heads = [*table.sizes, *(f"{backend}/{form} ({table.unit})" for backend, form in table.columns)]
        lines += [f"**{markdown(table.title)}** ({markdown(table.shown)})", ""]
        lines += [
            _line(map(markdown, heads)),
            f"|{' --- |' * len(table.sizes)}{' ---: |' * len(table.columns)}",
        ]
        lines += [_line([*map(markdown, sizes), *map(_markdown_cell, cells)]) for sizes, cells in table.rows]
        lines += ["", f"{BOLD}.{f' † {LESS}.' if table.has_less else ''}", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    shown = markdown(entry.text)
    if entry.best:
        shown = f"**{shown}**"
    return f"{shown}{' †' if entry.less else ''}{f' [{entry.interval}]' if entry.interval else ''}"


def tables_latex(run: Run, tables: Sequence[MedianTable]) -> str:
    r"""The tables as ``table*`` floats of booktabs; a median stands above its interval, so that a row of
    many forms fits; one that is still wider than the page is made smaller."""
    lines = [r"% Needs booktabs, graphicx, textcomp and \usepackage[T1]{fontenc}.", *_comments(run), ""]
    for table in tables:
        lines += [*_latex_table(table), ""]
    return "\n".join(lines)


def _comments(run: Run) -> list[str]:
    # One line each: they were cleaned, and nothing of a run can end a comment.
    return [f"% {latex(line)}" for line in _about(run)]


def _latex_table(table: MedianTable) -> list[str]:
    stub = len(table.sizes)
    groups = [(b, len(list(found))) for b, found in itertools.groupby(table.columns, key=lambda c: c[0])]
    above, rules, at = [""] * stub, [], stub + 1
    for backend, width in groups:
        above.append(rf"\multicolumn{{{width}}}{{c}}{{{latex(backend)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    heads = [*map(latex, table.sizes), *(f"{latex(form)} ({table.unit})" for _, form in table.columns)]
    less = rf" $^\dagger$ {latex(LESS)}." if table.has_less else ""
    return [
        r"\begin{table*}",
        r"  \centering\small\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{latex(table.title)}. {latex(table.shown)}. {latex(BOLD)}.{less}}}",
        r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{'r' * (stub + len(table.columns))}}}",
        r"    \toprule",
        rf"    {' & '.join(above)} \\",
        f"    {' '.join(rules)}",
        rf"    {' & '.join(heads)} \\",
        r"    \midrule",
        *(
            rf"    {' & '.join([*map(latex, sizes), *map(_latex_cell, cells)])} \\"
            for sizes, cells in table.rows
        ),
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table*}",
    ]


def _latex_cell(entry: Entry | None) -> str:
    if entry is None:
        return "--"
    shown = latex(entry.text)
    if entry.status:
        return rf"\textit{{{shown}}}"
    if entry.best:
        shown = rf"\textbf{{{shown}}}"
    if entry.less:
        shown += r"$^\dagger$"
    if not entry.interval:
        return shown
    return rf"\shortstack[r]{{{shown}\\{{\scriptsize [{entry.interval}]}}}}"
