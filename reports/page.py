"""From a run folder to what a person reads: report.html, the figures and the exports.

Everything in a run folder is untrusted: the template escapes it, what does not print is replaced, and the
page allows itself no request and no script but its own.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mtbench.results import FAILURES, STATUSES, Run
from mtbench.spec import ATTENTIONS

from . import header, machines, missing, sentences
from .articles import articles
from .details import row_details
from .disk import write_whole
from .drawing import draw
from .embed import as_json, packed, plotly_js, script_hash
from .explorer import explorer_data
from .exports import measurements_csv, pytest_benchmark_files
from .figures import FILE_PREFIXES
from .plan import AnyFigure, plan_figures
from .profiles import profile_links
from .rendering import TEMPLATES, template
from .roofline import missing_ceilings
from .scaling import scaled
from .settings import CLOCK_NAMES, Names
from .style import THEMED, Look, backend_looks, form_dashes
from .svg import inline_svg
from .table import Cell, Table, all_rows, in_order, shown_value
from .winners import WinnerMap

__all__ = ["write_report"]

Drawn = tuple[AnyFigure, str]
"""A figure and its SVG."""
SCRIPTS = ("unpack.js", "rows.js", "explorer.js")
MAX_IN_PAGE = 400
"""Rows of the table that are written out; the script has the others, packed, and shows so many at a time."""
MAX_LISTED = 400
"""Rows named one by one in a group of those that have no time; the table below has them all."""


def write_report(folder: Path) -> Path:
    """Write report.html, figures/, measurements.csv and pytest-benchmark.json into a run folder, from the
    folder alone; the same folder gives the same report.html. Returns the path of report.html.

    Raises:
        BadInput: there is no run in the folder, or a newer mtbench wrote it.
    """
    run = Run.load(folder)
    folder = run.folder
    write_whole(folder / "measurements.csv", measurements_csv(run).encode("utf-8", "replace"))
    for name, text in pytest_benchmark_files(run).items():
        write_whole(folder / name, text.encode())
    rows = list(run)
    looks = backend_looks(row.backend for row in rows)
    drawn = _write_figures(folder / "figures", run, looks)
    page = folder / "report.html"
    write_whole(page, render(run, drawn, looks).encode("utf-8", "replace"))
    return page


def _write_figures(folder: Path, run: Run, looks: dict[str, Look]) -> list[Drawn]:
    """Draw every figure into the folder, which loses those of an earlier report."""
    rows = list(run)
    dashes = form_dashes(row.form for row in rows)
    folder.mkdir(exist_ok=True)
    for prefix in FILE_PREFIXES:
        for old in (*folder.glob(f"{prefix}-*.svg"), *folder.glob(f"{prefix}-*.png")):
            old.unlink()
    drawn = []
    for figure in plan_figures(rows, run.ceilings):
        files = draw(figure, looks, dashes)
        for ending, data in files.items():
            write_whole(folder / f"{figure.name}.{ending}", data)
        drawn.append((figure, files["svg"].decode()))
    return drawn


def render(run: Run, drawn: list[Drawn], looks: dict[str, Look]) -> str:
    """The page's text."""
    from markupsafe import Markup

    rows = list(run)
    ordered, table = in_order(rows), all_rows(rows, run.ceilings, profile_links(run))
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    library = plotly_js()
    # Generated here or shipped with mtbench, so safe as it is: the style, the scripts, matplotlib's SVG, and
    # JSON in which no sign can end its element.
    return template("report.html.j2").render(
        sentences=sentences,
        clock_names=CLOCK_NAMES,
        shown_value=shown_value,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        script_hashes=[script_hash(script) for script in (*scripts, library)],
        library=Markup(packed(library)),  # noqa: S704
        explorer=Markup(as_json(explorer_data(ordered, looks, run.ceilings))),  # noqa: S704
        details=Markup(packed(as_json(row_details(run, ordered)))),  # noqa: S704
        **_headline(run),
        verdicts=articles(rows),
        maps={
            (figure.context, figure.clock): _shown_figure(number, figure, svg)
            for number, (figure, svg) in enumerate(drawn, start=1)
            if isinstance(figure, WinnerMap)
        },
        figures=_by_context(drawn),
        scaled=scaled(rows),
        names=Names(rows),
        no_roofline=missing_ceilings(rows, run.ceilings),
        looks={name: f"var({THEMED[look.color]})" for name, look in looks.items()},
        kinds=machines.kinds(run),
        notes=machines.notes(run),
        beside=machines.side_by_side(rows),
        not_timed=missing.not_timed(rows),
        untimed=missing.untimed(rows),
        careful=missing.careful(rows),
        not_measured=_not_measured(run),
        max_listed=MAX_LISTED,
        meanings=missing.MEANINGS,
        support=header.support(run),
        limits=header.limits(run),
        caveats=header.caveats(run),
        facts=header.facts(run),
        table=table,
        in_page=MAX_IN_PAGE,
        rest=Markup(packed(as_json(_rest(table)))),  # noqa: S704
        badges=json.dumps({status: _badge(status) for status in STATUSES}),
    )


def _headline(run: Run) -> dict[str, Any]:
    rows = list(run)
    counts = Counter(row.status for row in rows)
    order = [*STATUSES, *sorted(set(counts) - set(STATUSES))]
    return {
        "outcome": str(run.header.get("outcome") or "of unknown outcome"),
        "machine": header.machine(run),
        "when": header.when(run),
        "elapsed": header.elapsed(run),
        "command": " ".join(map(str, header.sequence(run.header.get("command")))),
        "total": len(rows),
        "ranked": sum(row.ranked for row in rows),
        "counts": [(status, counts[status], status in FAILURES) for status in order if counts[status]],
        "failed": sum(counts[status] for status in FAILURES),
        "devices": sorted({row.case.device for row in rows}),
        "dtypes": sorted({row.case.dtype for row in rows}),
        "modes": sorted({row.case.mode.replace("_", " + ") for row in rows}),
        "attentions": [kind for kind in ATTENTIONS if any(row.case.spec.kind == kind for row in rows)],
        "backends": sorted({row.backend for row in rows}),
        "unreadable": run.unreadable_lines,
    }


def _rest(table: Table) -> list[list[Any]]:
    """The rows of the table that are not written out: a text a cell, or text, small print, number and what it
    leads to."""
    return [[_packed_cell(cell) for cell in cells] for _, cells in table.rows[MAX_IN_PAGE:]]


def _packed_cell(cell: Cell) -> Any:
    if cell.href:
        return [cell.text, cell.note, shown_value(cell.value), cell.href]
    plain = cell.value is None and not cell.note
    return cell.text if plain else [cell.text, cell.note, shown_value(cell.value)]


def _badge(status: str) -> str:
    return "bad" if status in FAILURES else "good" if status == "ok" else "plain"


def _not_measured(run: Run) -> list[str]:
    found = {row.id for row in run}
    return [row for row in dict.fromkeys(header.planned(run)) if row not in found]


def _by_context(drawn: list[Drawn]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The figures below the verdict, which has the maps of winners."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, (figure, svg) in enumerate(drawn, start=1):
        if not isinstance(figure, WinnerMap):
            groups.setdefault(figure.context.label, []).append(_shown_figure(number, figure, svg))
    return list(groups.items())


def _shown_figure(number: int, figure: AnyFigure, svg: str) -> dict[str, Any]:
    return {"figure": figure, "svg": inline_svg(svg, prefix=f"f{number}", title=figure.alt)}
