"""The page of a training run: what it says, that it escapes, and that the same folder gives the same
files."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import replace
from pathlib import Path

import pytest

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


def test_what_a_task_found_at_the_end_is_there_to_be_read(tmp_path: Path) -> None:
    scores = {
        name: [{"BLEU": base + seed, "chrF": 50.0, "decoded subwords/s": 1000.0 * base} for seed in range(3)]
        for name, base in (("softmax", 20.0), ("linear", 10.0))
    }
    folder = tmp_path / "run"
    written(examined_run(scores), folder)
    text = write_training_report(folder).read_text(encoding="utf-8")
    row = text.split('<tr><th scope="row">')[2].split("</tr>")[0]
    for part in (">11<small>9 to 13<", ">50.0<", ">10000<", ">21.37<", ">1382<"):
        assert part in row, part
    for part in ("one &lt;i&gt;", "of softmax", "of linear", "nrefs:1|&lt;b&gt;", 'href="#samples"'):
        assert part in text, part
    assert (folder / "figures" / "scores.svg").exists()
