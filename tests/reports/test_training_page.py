"""The page of a training run: what it says, that it escapes, and that the same folder gives the same
files."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import replace
from pathlib import Path

import pytest

from reports.training_figures import curves
from reports.training_page import write_training_report
from tests.training.synthetic import PAPER, examined_run, made_run, written


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "run"
    written(made_run(statuses={("softmax", 1): "diverged"}), folder)
    return write_training_report(folder)


def test_it_says_what_held(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in (
        "The copy task: 6 transformers, 3 seeds each",
        "did not hold",
        "Momentum ends at a lower loss than linear.",
        "held-out loss over linear&#39;s: 1.50",
        "1 training did not get to the end",
        "why it is diverged",
        "arXiv 2208.00579",
        "2 finished seeds in common, and at least 3 are wanted",
    ):
        assert part in text, part


def test_its_numbers_are_those_of_the_run(page: Path) -> None:
    """Loss of linear: geometric mean of .02, .022, .024."""
    text = page.read_text(encoding="utf-8")
    row = text.split('<tr><th scope="row">')[2].split("</tr>")[0]
    assert "linear" in row
    assert ">0.0219<" in row
    assert ">6.4<" in row


def test_the_same_folder_gives_the_same_files(page: Path) -> None:
    files = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    write_training_report(page.parent)
    assert {path: path.read_bytes() for path in files} == files
    assert {path.name for path in (page.parent / "figures").iterdir()} == {
        f"{name}.{ending}"
        for name in ("loss-steps", "loss-seconds", "final-quality", "cost")
        for ending in ("svg", "png")
    }


def test_every_step_is_a_row(page: Path) -> None:
    text = gzip.decompress((page.parent / "steps.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 17 * 100 + 50
    first = rows[0]
    assert (first["job"], first["step"], first["lr"]) == ("softmax-seed0", "0", "0.001")
    assert float(first["tokens_per_s"]) == pytest.approx(64 * 128 / 1.0)


def test_nothing_of_a_run_is_believed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e"
    run = made_run(
        {"linear": [(0.1, 0.9, 1.0)], evil: [(0.1, 0.9, 1.0)]},
        statuses={(evil, 0): evil},
        header={
            "started": evil,
            "command": [evil],
            "outcome": evil,
            "environment": {evil: evil},
            "workers": 3,
        },
    )
    written(run, tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\u202e" not in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_run_without_an_epoch_has_a_page(tmp_path: Path) -> None:
    run = made_run({"linear": [(0.1, 0.9, 1.0)]})
    empty = replace(run, jobs=(replace(run.jobs[0], epochs=(), status="not begun"),))
    written(empty, tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "No training has an epoch yet" in text


def test_other_settings_than_the_papers_test_nothing(tmp_path: Path) -> None:
    run = made_run(schedule=replace(PAPER.schedule, epochs=4))
    written(run, tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "none of its claims can be tested by this run: epochs 4 and not 100" in text
    assert "did not hold</span>" not in text


@pytest.mark.parametrize("parallel", [1, 3])
def test_times_of_trainings_side_by_side_are_no_comparison(parallel: int, tmp_path: Path) -> None:
    written(made_run(parallel=parallel), tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert ("3 trainings shared a device" in text) == (parallel == 3)


def test_a_run_on_a_card_has_its_share_of_what_the_card_reaches(tmp_path: Path) -> None:
    """100 steps of 64 x 128 tokens a second, of 4 layers: 3 x 4 x 2 x 786,432 operations of products a token,
    and those of the attention."""
    reached = {"matmul_flop_per_s": {"float32": 1e15}}
    run = made_run({"linear": [(0.1, 0.9, 1.0)]}, header={"workers": {"torch on cuda": reached}})
    (trained,) = run.jobs
    kernels = replace(trained.job.kernels, device="cuda")
    on_card = replace(trained, job=replace(trained.job, kernels=kernels))
    plan = {**run.header["plan"], "jobs": [on_card.job.to_dict()]}
    written(replace(run, jobs=(on_card,), header={**run.header, "plan": plan}), tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "of the card&#39;s rate" in text or "of the card's rate" in text
    share = 100 * 64 * 128 * (3 * 4 * 2 * 786_432 + 4 * 8 * 32 * 32 * 12) / 1e15
    assert f">{share:.1%}<" in text


def test_a_line_says_where_it_is_of_fewer_seeds(tmp_path: Path) -> None:
    run = made_run({"linear": [(0.1, 0.9, 1.0)] * 3})
    whole, cut = curves(run, "steps"), replace(run.jobs[0], status="cut off", epochs=run.jobs[0].epochs[:-1])
    fewer = curves(replace(run, jobs=(cut, *run.jobs[1:])), "steps")
    assert whole is not None
    assert fewer is not None
    assert "means over 3 seeds, bands" in whole.caption
    assert "means over 3 seeds, or those of them that got there, bands" in fewer.caption


def test_one_seed_has_the_interval_of_its_held_out_data(tmp_path: Path) -> None:
    run = made_run({"linear": [(0.1, 0.9, 1.0)], "momentum": [(0.1, 0.999, 1.0)]})
    jobs = tuple(
        replace(t, epochs=(*t.epochs[:-1], replace(t.epochs[-1], held_out_metric_error=0.005)))
        for t in run.jobs
    )
    written(replace(run, jobs=jobs), tmp_path / "r")
    text = write_training_report(tmp_path / "r").read_text(encoding="utf-8")
    assert ">0.900<small>0.890 to 0.910</small>" in text
    assert ">0.999<small>0.989 to 1.000</small>" in text  # no share is above 1
    assert "says nothing of other seeds" in text
    assert "Lines are of one seed. Seconds are those of training steps alone." in text
    written(made_run({"linear": [(0.1, 0.9, 1.0)]}), tmp_path / "without")
    assert "other seeds" not in write_training_report(tmp_path / "without").read_text(encoding="utf-8")


def test_what_a_task_found_at_the_end_is_there_to_be_read(tmp_path: Path) -> None:
    scores = {
        name: [{"BLEU": base + seed, "chrF": 50.0, "decoded subwords/s": 1000.0 * base} for seed in range(3)]
        for name, base in (("softmax", 20.0), ("linear", 10.0))
    }
    folder = tmp_path / "run"
    written(examined_run(scores), folder)
    text = write_training_report(folder).read_text(encoding="utf-8")
    row = text.split('<tr><th scope="row">')[2].split("</tr>")[0]
    for part in (">11<small>9 to 13<", ">50.0<", ">10,000<", ">21.37<", ">1382<"):
        assert part in row, part
    for part in ("one &lt;i&gt;", "of softmax", "of linear", "nrefs:1|&lt;b&gt;", 'href="#samples"'):
        assert part in text, part
    assert (folder / "figures" / "scores.svg").exists()
