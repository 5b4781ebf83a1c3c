"""What holds of every task."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench import BadInput
from mtbench.training.settings import Schedule
from mtbench.training.tasks import TASKS, load_task
from tests.training.images import opened


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_it_is(name: str, tmp_path: Path) -> None:
    task = opened(name, tmp_path)
    assert task.name == name
    assert task.metric.better in ("more", "less")
    assert {"paper", "short"} <= set(task.presets)
    for preset in task.presets.values():
        task.check(preset.size, preset.schedule)
        data = task.batches(
            Schedule(epochs=1, iterations=2, batch=3, seq_len=preset.schedule.seq_len),
            preset.size, seed=0, epoch=0,
        )  # fmt: skip
        assert all(array.shape[:2] == (2, 3) for array in data.values())


def test_a_task_that_makes_its_data_wants_none() -> None:
    for name in ("copy", "digits"):
        with pytest.raises(BadInput, match="--data x: the task"):
            load_task(name).open("x")
