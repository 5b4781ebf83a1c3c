"""What holds of every task."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench import BadInput
from mtbench.training.settings import Schedule
from mtbench.training.tasks import TASKS, grouped, load_task
from tests.training.sequences import opened


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = opened(name, tmp_path, monkeypatch)
    assert task.name == name
    assert task.metric.better in ("more", "less")
    assert {"paper", "short"} <= set(task.presets)
    for preset in task.presets.values():
        task.check(preset.size, preset.schedule)
        schedule = Schedule(epochs=1, iterations=2, batch=3, seq_len=preset.schedule.seq_len)
        groups = grouped(task.batches(schedule, preset.size, seed=0, epoch=0))
        assert sum(len(next(iter(data.values()))) for data in groups) == schedule.iterations
        for data in groups:
            assert len({array.shape[:2] for array in data.values()}) == 1


@pytest.mark.parametrize("name", ["copy", "listops", "digits"])
def test_a_task_that_makes_its_data_wants_none(name: str) -> None:
    with pytest.raises(BadInput, match="--data x: the task"):
        load_task(name).open("x")
