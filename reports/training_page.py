"""From a training run's folder to its page, its figures and the table of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtbench.floor import read_ceilings
from mtbench.training.claims import LEAST_SEEDS, VERDICTS, Judged, departures, judge
from mtbench.training.metric import Metric
from mtbench.training.published import Published, Quantity
from mtbench.training.results import Trained, TrainingRun
from mtbench.training.summary import Estimate, against, of_variant, over_held_out
from mtbench.training.tasks import TASKS, Task, load_task

from . import format as fmt
from . import header
from .digits import with_interval
from .disk import write_whole
from .rendering import styles, template
from .style import THEMED, Look, variant_looks
from .svg import inline_svg
from .training_drawing import draw_training
from .training_exports import steps_csv
from .training_figures import Curves, Dots, curves, dots, mean_metric
from .training_work import model_operations
from .variants import label

__all__ = ["write_training_report"]

Figures = Sequence[tuple[Curves | Dots, str]]
"""Each with its SVG."""
PREFIXES = ("loss", "final-quality", "scores", "cost")
BASE = "linear"
"""What the others are set against: the transformer that the paper adds momentum to."""


def write_training_report(folder: Path) -> Path:
    """Write report.html, figures/ and steps.csv.gz into a training run's folder, from the folder alone; the
    same folder gives the same files. Returns the path of report.html.

    Raises:
        BadInput: there is no training run in the folder, or a newer mtbench wrote it.
    """
    run = TrainingRun.load(folder)
    looks = variant_looks(run.variants)
    write_whole(run.folder / "steps.csv.gz", steps_csv(run))
    drawn = _write_figures(run, looks)
    page = run.folder / "report.html"
    write_whole(page, render(run, drawn, looks).encode("utf-8", "replace"))
    return page


def _write_figures(run: TrainingRun, looks: Mapping[str, Look]) -> Figures:
    """Draw every figure into the folder, which loses those of an earlier report."""
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    for prefix in PREFIXES:
        for old in (*folder.glob(f"{prefix}*.svg"), *folder.glob(f"{prefix}*.png")):
            old.unlink()
    planned: list[Curves | Dots] = [
        *(figure for axis in ("steps", "seconds") if (figure := curves(run, axis)) is not None),
        *dots(run, _metric(run), _scores(run)),
    ]
    drawn = []
    for one in planned:
        files = draw_training(one, looks)
        for ending, data in files.items():
            write_whole(folder / f"{one.name}.{ending}", data)
        drawn.append((one, files["svg"].decode()))
    return drawn


def render(run: TrainingRun, drawn: Figures, looks: Mapping[str, Look]) -> str:
    """The page's text."""
    task, metric = _task(run), _metric(run)
    judged = [judge(claim, run, task) for claim in task.published.claims] if task and task.published else []
    shown = [
        {"figure": figure, "svg": inline_svg(svg, prefix=f"t{number}", title=figure.title)}
        for number, (figure, svg) in enumerate(drawn, start=1)
    ]
    command = " ".join(map(str, header.sequence(run.header.get("command"))))
    return template("training.html.j2").render(
        style=styles("report.css", "several.css", "training.css"),
        title=task.title if task else "Training",
        metric=metric,
        held_out_of=task.held_out_of if task else "",
        by_seed=any(
            found.low is not None for v in run.variants if (found := of_variant(run, v, "metric")) is not None
        ),
        by_held_out=any(over_held_out(t, metric) is not None for t in run),
        machine=header.machine_words(run, used_gpu=_device(run) == "cuda"),
        when=header.when(run),
        elapsed=header.elapsed(run),
        outcome=str(run.header.get("outcome") or "of unknown outcome"),
        counts=list(Counter(trained.status for trained in run).items()),
        unreadable=run.unreadable_lines,
        seeds=len({trained.job.seed for trained in run}),
        labels={variant: label(variant) for variant in run.variants},
        looks={name: f"var({THEMED[look.color]})" for name, look in looks.items()},
        verdicts=[
            (verdict, [_claim(j, metric) for j in judged if j.verdict == verdict]) for verdict in VERDICTS
        ],
        least_seeds=LEAST_SEEDS,
        departures=departures(run, task) if task else [],
        published=task.published if task else None,
        rows=[_row(run, variant, metric, task.published if task else None) for variant in run.variants],
        beside=parallel if isinstance(parallel := _plan(run).get("parallel"), int) else 1,
        shares=_matmul_rate(run) is not None,
        paper_times=bool(task and task.published and task.published.values.get("seconds_per_epoch")),
        scores=_scores(run),
        paper_scores=_paper_scores(task),
        paper_metric=bool(task and task.published and task.published.values.get("metric")),
        notes=_notes(run),
        samples=_samples(run),
        figures=shown,
        settings=_settings(run),
        unfinished=[t for t in run if not t.finished],
        memory_methods=sorted({row.memory_method for t in run for row in t.epochs[-1:]}),
        facts=header.facts(run),
        command=command,
    )


def _task(run: TrainingRun) -> Task | None:
    """That of the run, where this mtbench knows it."""
    name = run.jobs[0].job.task if run.jobs else ""
    return load_task(name) if name in TASKS else None


def _metric(run: TrainingRun) -> Metric:
    task = _task(run)
    return task.metric if task else Metric(name="metric", unit="the task's own", better="more")


def _scores(run: TrainingRun) -> tuple[Metric, ...]:
    task = _task(run)
    return task.scores if task else ()


def _device(run: TrainingRun) -> str:
    return run.jobs[0].job.kernels.device if run.jobs else ""


def _claim(judged: Judged, metric: Metric) -> dict[str, Any]:
    """A claim as the page has it: what was measured, in words."""
    claim, found = judged.claim, judged.estimate
    what = {
        "loss": "held-out loss",
        "metric": f"held-out {metric.name}",
        "seconds_per_epoch": "seconds an epoch",
    }.get(claim.quantity, claim.quantity)
    told = ""
    if found is not None:
        value, interval = _with_interval(found, geometric=claim.quantity != "metric" or bool(claim.against))
        of = f"{what} over {claim.against}'s" if claim.against else what
        told = f"{of}: {value}" + (f", 95% interval {interval}" if interval else "")
        told += f", {fmt.count(found.seeds, 'seed')}"
    return {"text": claim.text, "told": told, "reason": judged.reason}


def _with_interval(found: Estimate, *, geometric: bool) -> tuple[str, str]:
    """A value and its interval. Ends that lie as far from it by ratio, and not by difference, have digits of
    their own."""
    if found.low is None or found.high is None:
        return fmt.number(found.value), ""
    if geometric:
        return fmt.number(found.value), f"{fmt.number(found.low)} to {fmt.number(found.high)}"
    value, ends = with_interval(found.value, found.low, found.high)
    return value, ends.replace(", ", " to ")


def _row(run: TrainingRun, variant: str, metric: Metric, published: Published | None) -> dict[str, Any]:
    """A line of the table of results."""
    trained = run.of(variant)
    cells: dict[str, dict[str, str]] = {}
    quantities: tuple[Quantity, ...] = ("loss", "metric", "seconds_per_epoch")
    for quantity in quantities:
        is_metric = quantity == "metric"
        found = mean_metric(run, variant, metric) if is_metric else of_variant(run, variant, quantity)
        value, interval = "–", ""
        if found is not None:
            value, interval = _with_interval(found, geometric=quantity != "metric")
        cells[quantity] = {"value": value, "interval": interval}
    task = _task(run)
    scores = [_score(run, variant, score) for score in _scores(run)]
    ratio = None if variant == BASE else against(run, variant, BASE, "seconds_per_epoch")
    speeds = [t.tokens_per_s for t in trained if t.tokens_per_s is not None]
    peaks = [t.peak_memory_bytes for t in trained if t.peak_memory_bytes is not None]
    values = published.values if published else {}
    paper_s = values.get("seconds_per_epoch", {})
    paper_ratio = ""
    if variant in paper_s and BASE in paper_s and variant != BASE:
        paper_ratio = fmt.ratio(float(paper_s[variant]) / float(paper_s[BASE]))
    return {
        "variant": variant,
        "finished": sum(t.finished for t in trained),
        "seeds": len(trained),
        **cells,
        "scores": scores,
        "paper_scores": [published.values[name].get(variant, "–") for name in _paper_scores(task)]
        if published
        else [],
        "ratio": "" if ratio is None else fmt.ratio(ratio.value),
        "speed": fmt.number(sum(speeds) / len(speeds) / 1000) if speeds else "–",
        "share": _share(run, trained, speeds),
        "memory": fmt.memory(max(peaks)) if peaks else "–",
        "paper_metric": values.get("metric", {}).get(variant, "–"),
        "paper_s": paper_s.get(variant, "–"),
        "paper_ratio": paper_ratio,
    }


def _matmul_rate(run: TrainingRun) -> float | None:
    """Of products in the dtype of the run's, as its device was measured to reach; None where it was not, or
    where nobody has counted the model's operations."""
    task = _task(run)
    if task is None or not task.decoder:
        return None
    kernels = run.jobs[0].job.kernels
    found = read_ceilings(run.header.get("workers")).get(kernels.device)
    return (
        None if found is None or kernels.precision == "tf32" else found.matmul_flop_per_s.get(kernels.dtype)
    )


def _share(run: TrainingRun, trained: Sequence[Trained], speeds: Sequence[float]) -> str:
    """Operations that the model needs for the tokens of a second, over those that the device can do."""
    rate = _matmul_rate(run)
    if rate is None or not speeds:
        return "–"
    return f"{model_operations(trained[0].job) * sum(speeds) / len(speeds) / rate:.1%}"


def _score(run: TrainingRun, variant: str, score: Metric) -> dict[str, str]:
    """One that the task found at the end."""
    found = of_variant(run, variant, score.name, score)
    if found is None:
        return {"value": "–", "interval": ""}
    value, interval = _with_interval(found, geometric=False)
    return {"value": value, "interval": interval}


def _paper_scores(task: Task | None) -> list[str]:
    """Those of a task's scores that the paper has too."""
    if task is None or task.published is None:
        return []
    return [score.name for score in task.scores if score.name in task.published.values]


def _notes(run: TrainingRun) -> list[tuple[str, str]]:
    """What to know of the scores, each once."""
    found = [note for t in run if t.examined for note in t.examined.notes.items()]
    return list(dict.fromkeys(found))


def _samples(run: TrainingRun) -> list[dict[str, Any]]:
    """What was made, to be read: what all made it of, and what each variant's first seed made."""
    first: dict[str, Trained] = {}
    for trained in run:
        if trained.examined and trained.examined.samples:
            first.setdefault(trained.job.variant, trained)
    rows: list[dict[str, Any]] = []
    for variant, trained in first.items():
        for at, sample in enumerate(trained.examined.samples if trained.examined else ()):
            *given, made = sample.items()
            if at == len(rows):
                rows.append({"given": given, "made": []})
            rows[at]["made"].append((variant, made[1]))
    return rows


def _plan(run: TrainingRun) -> Mapping[str, Any]:
    return header.mapping(run.header.get("plan"))


def _beside(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a training had beside it."""
    gpus = plan.get("gpus", 1)  # older runs do not say
    return {"side by side": plan.get("parallel"), **({"GPUs": gpus} if gpus != 1 else {})}


def _settings(run: TrainingRun) -> list[tuple[str, list[tuple[str, str]]]]:
    """What all trainings have in common, in tables."""
    if not run.jobs:
        return []
    job = run.jobs[0].job
    data = job.to_dict()
    plan = _plan(run)
    parameters = sorted(
        {
            int(outcome["parameters"])
            for outcome in header.mapping(run.header.get("jobs")).values()
            if isinstance(header.mapping(outcome).get("parameters"), int)
        }
    )
    return [
        ("Model", [*header.flatten(data["model"]["size"]), ("parameters", ", ".join(map(str, parameters)))]),
        ("Schedule", [("preset", str(plan.get("preset"))), *header.flatten(data["schedule"])]),
        ("Optimiser (RAdam)", list(header.flatten(data["optimization"]))),
        ("Momenta", list(header.flatten(data["model"]["momenta"]))),
        ("Kernels", list(header.flatten({**data["kernels"], **_beside(plan)}))),
    ]
