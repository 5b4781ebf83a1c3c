"""A training run's folder, written and read back, whole and damaged."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from mtbench import BadInput
from mtbench.errors import StorageError
from mtbench.results import Run
from mtbench.training.folder import TrainingFolder
from mtbench.training.results import TrainingRun, read_epochs
from tests.training.synthetic import made_run, written


def test_a_run_is_read_back(tmp_path: Path) -> None:
    made = made_run({"linear": [(0.1, 0.9, 1.5)], "momentum": [(math.nan, 0.5, 1.0)]})
    found = written(made, tmp_path / "r")
    linear, momentum = found
    assert linear == made.jobs[0]
    assert math.isnan(momentum.loss or 0)
    assert linear.seconds_per_epoch == 1.5
    assert linear.tokens_per_s == pytest.approx(64 * 128 * 100 / 1.5)
    assert found.variants == ("linear", "momentum")


def test_a_damaged_line_is_counted_and_a_later_one_counts(tmp_path: Path) -> None:
    found = written(made_run({"linear": [(0.1, 0.9, 1.5)]}), tmp_path / "r")
    file = tmp_path / "r" / "epochs.jsonl"
    lines = file.read_text().splitlines()
    again = json.loads(lines[0]) | {"seconds": [9.0]}
    file.write_text("\n".join([*lines, "{damaged", json.dumps(again), lines[1][:50]]))
    run = TrainingRun.load(tmp_path / "r")
    assert run.unreadable_lines == 2
    assert run.jobs[0].epochs[0].seconds == (9.0,)
    assert run.jobs[0].epochs[1:] == found.jobs[0].epochs[1:]
    with TrainingFolder.resume(tmp_path / "r")[0]:
        assert read_epochs(file.read_bytes())[1] == 1  # the line that was cut off is gone


def test_a_packed_run_is_read_and_not_gone_on_with(tmp_path: Path) -> None:
    made = written(made_run({"linear": [(0.1, 0.9, 1.5)]}), tmp_path / "r")
    file = tmp_path / "r" / "epochs.jsonl"
    packed = gzip.compress(file.read_bytes())
    file.unlink()
    file.with_suffix(".jsonl.gz").write_bytes(packed)
    assert TrainingRun.load(tmp_path / "r").jobs == made.jobs
    with pytest.raises(BadInput, match=r"is packed: unpack it first, by `gunzip .*epochs.jsonl.gz`"):
        TrainingFolder.resume(tmp_path / "r")
    assert not file.exists()
    file.with_suffix(".jsonl.gz").write_bytes(packed[:50])
    with pytest.raises(BadInput, match=r"epochs.jsonl.gz cannot be unpacked"):
        TrainingRun.load(tmp_path / "r")


def test_what_is_no_training_run_is_refused(tmp_path: Path) -> None:
    for text, told in (
        ('{"schema": 2}', "holds a sweep, and what is wanted here is a training run"),
        ('{"schema": 99, "kind": "training"}', "needs a newer mtbench"),
        ('{"schema": 1, "kind": "training"}', "has no plan of a training run"),
        ('{"schema": 1, "kind": "other"}', "holds a run of kind 'other'"),
        ("[]", "no schema version"),
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(BadInput, match=told):
            TrainingRun.load(tmp_path)
    written(made_run({"linear": [(0.1, 0.9, 1.5)]}), tmp_path / "t")
    with pytest.raises(BadInput, match="holds a training run, and what is wanted here is a sweep"):
        Run.load(tmp_path / "t")


def test_a_full_disk_is_told_with_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "epochs.jsonl").symlink_to("/dev/full")
    row = made_run({"linear": [(0.1, 0.9, 1.5)]}).jobs[0].epochs[0]
    told = "No space left.*every epoch before it is kept.*mtbench train --resume"
    with TrainingFolder.create(tmp_path) as folder, pytest.raises(StorageError, match=told):
        folder.append(row)
