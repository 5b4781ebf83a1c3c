"""From a folder of generated images to its page and its figures."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtbench.generation.claims import judge_speeds
from mtbench.generation.results import Generated, GenerationRun
from mtbench.training.claims import VERDICTS
from mtbench.training.published import Published
from mtbench.training.tasks import TASKS, load_task

from . import format as fmt
from . import header
from .disk import write_whole
from .generation_drawing import Panels, draw_panels, planned
from .rendering import styles, template
from .style import THEMED, variant_looks
from .svg import inline_svg
from .variants import label

__all__ = ["write_generation_report"]

LARGEST_SHEET = 4 << 20
"""Bytes of a sheet that a page takes in."""
PNG = b"\x89PNG\r\n\x1a\n"


def write_generation_report(folder: Path) -> Path:
    """Write report.html and figures/ into a folder of generated images, from the folder alone; the same
    folder gives the same files. Returns the path of report.html.

    Raises:
        BadInput: nothing of the kind is in the folder, or a newer mtbench wrote it.
    """
    run = GenerationRun.load(folder)
    looks = variant_looks(dict.fromkeys(row.variant for row in run.rows))
    figures = run.folder / "figures"
    figures.mkdir(exist_ok=True)
    for old in (*figures.glob("*.svg"), *figures.glob("*.png")):
        old.unlink()
    drawn = []
    for figure in planned(run):
        files = draw_panels(figure, looks)
        for ending, data in files.items():
            write_whole(figures / f"{figure.name}.{ending}", data)
        drawn.append((figure, files["svg"].decode()))
    page = run.folder / "report.html"
    colors = {name: f"var({THEMED[look.color]})" for name, look in looks.items()}
    write_whole(page, _render(run, drawn, colors).encode("utf-8", "replace"))
    return page


def _render(run: GenerationRun, drawn: Sequence[tuple[Panels, str]], colors: dict[str, str]) -> str:
    plan = header.mapping(run.header.get("plan"))
    drawing = header.mapping(plan.get("drawing"))
    name = str(plan.get("task"))
    task = load_task(name) if name in TASKS else None
    published = task.published if task else None
    judged = judge_speeds(run, task) if task else []
    shown = [
        {"figure": figure, "svg": inline_svg(svg, prefix=f"g{number}", title=figure.title)}
        for number, (figure, svg) in enumerate(drawn, start=1)
    ]
    jobs = [header.mapping(job) for job in header.sequence(plan.get("jobs"))]
    size = header.mapping(header.mapping(jobs[0].get("model")).get("size")) if jobs else {}
    return template("generation.html.j2").render(
        style=styles("report.css", "several.css", "training.css"),
        title=task.title if task else "Images",
        machine=header.machine_words(run, used_gpu=drawing.get("device") == "cuda"),
        when=header.when(run),
        elapsed=header.elapsed(run),
        outcome=str(run.header.get("outcome") or "of unknown outcome"),
        counts=list(Counter(row.status for row in run.rows).items()),
        looks=colors,
        verdicts=[(word, [c for c in judged if c.verdict == word]) for word in VERDICTS],
        published=published,
        rows=[_row(run, row, published) for row in run.rows],
        roof=run.copy_bytes_per_s is not None,
        sheets=_sheets(run),
        figures=shown,
        settings=[
            ("Model", list(header.flatten(dict(size)))),
            ("Drawing", list(header.flatten(dict(drawing)))),
            ("Epochs trained", list(header.flatten(dict(header.mapping(plan.get("epochs")))))),
        ],
        facts=header.facts(run),
        command=" ".join(map(str, header.sequence(run.header.get("command")))),
    )


def _row(run: GenerationRun, row: Generated, published: Published | None) -> dict[str, Any]:
    """A line of the table of results."""
    rows, columns, channels = row.shape
    table = published.images_per_s if published else {}
    paper = table.get(row.variant) if row.trained_size else None
    speed = row.images_per_s
    slowest, fastest = (row.batch / pick(row.seconds) for pick in (max, min)) if row.seconds else (0.0, 0.0)
    share = row.share_of_roof(run.copy_bytes_per_s)
    return {
        "variant": row.variant,
        "label": label(row.variant),
        "name": row.name,
        "shape": f"{rows} × {columns}" + (f" × {channels}" if channels > 1 else ""),
        "batch": row.batch,
        "status": row.status,
        "reason": row.reason,
        "speed": fmt.number(speed),
        "spread": f"{fmt.number(slowest)} to {fmt.number(fastest)}" if len(row.seconds) > 1 else "",
        "paper": paper or "–",
        "times": fmt.ratio(speed / float(paper)) if speed is not None and paper else "–",
        "latency": fmt.duration(1000 * row.latency_s) if row.latency_s is not None else "–",
        "parts": f"first {fmt.duration(1000 * row.parts_s[0])}, last {fmt.duration(1000 * row.parts_s[-1])}"
        if row.parts_s
        else "",
        "held": fmt.memory(row.held_bytes) if row.held_bytes is not None else "–",
        "peak": fmt.memory(row.peak_bytes / row.batch) if row.peak_bytes is not None else "–",
        "share": "–" if share is None else f"{fmt.number(100 * share, 2)}%",
        "check": row.check,
    }


def _sheets(run: GenerationRun) -> list[dict[str, str]]:
    """Of each checkpoint, however many batches it drew."""
    drawn = {row.name: row for row in run.rows if row.trained_size}
    return [sheet for row in drawn.values() if (sheet := _sheet(run, row)) is not None]


def _sheet(run: GenerationRun, row: Generated) -> dict[str, str] | None:
    """A checkpoint's sheet of samples as the page has it; None where no PNG lies there."""
    file = run.folder / "samples" / f"{row.name}.png"
    if Path(row.name).name != row.name or file.is_symlink() or not file.is_file():
        return None
    if file.stat().st_size > LARGEST_SHEET or not (data := file.read_bytes()).startswith(PNG):
        return None
    return {"label": label(row.variant), "name": row.name, "data": base64.b64encode(data).decode()}
