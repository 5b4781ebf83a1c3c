"""The reports of the recorded runs, made by today's code when the site is built, and a list of them.

A built report is megabytes, most of them plotly.js, so the repository keeps the runs and the site their
reports.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mtbench.registry import import_part

RUN = ("run.json", "measurements.jsonl")
"""What a report is made of."""
FOLDER = "recorded"


def recorded(source: Path) -> list[Path]:
    """The folders of recorded sweeps, by name; one of trainings has epochs."""
    return sorted(path.parent for path in (source / "results").glob("*/measurements.jsonl"))


def make_report(folder: Path, into: Path) -> None:
    """One report, by today's code, beside nothing else."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / folder.name
        run.mkdir()
        for name in RUN:
            shutil.copy(folder / name, run)
        shutil.copy(import_part("reports.page").write_report(run), into / f"{folder.name}.html")


def make_reports(app: Sphinx, failure: Exception | None) -> None:
    """All of them, into the built site."""
    if failure is not None or app.builder.format != "html":
        return
    into = Path(app.outdir) / FOLDER
    into.mkdir(exist_ok=True)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(partial(make_report, into=into), recorded(Path(app.srcdir))))


class RecordedReports(SphinxDirective):
    """``{recorded-reports}``: a list of links to the reports, each with its folder's heading and its size."""

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        up = "../" * self.env.docname.count("/")
        listed = nodes.bullet_list()
        for folder in recorded(Path(self.env.srcdir)):
            self.env.note_dependency(str(folder / "README.md"))
            heading = (folder / "README.md").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            rows = sum(1 for line in (folder / "measurements.jsonl").open(encoding="utf-8") if line.strip())
            started = str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["started"])
            link = nodes.reference("", heading, refuri=f"{up}{FOLDER}/{folder.name}.html", internal=True)
            text = nodes.paragraph("", "", link, nodes.Text(f": {rows} rows, {started[:10]}"))
            listed += nodes.list_item("", text)
        return [listed]


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("recorded-reports", RecordedReports)
    app.connect("build-finished", make_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
