"""Small jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mtbench.training.settings import Job, Kernels, Optimization, Schedule
from mtbench.training.tasks.copy import TASK
from mtbench.training.variants import Variant
from mtbench.transformer.config import ModelConfig, ModelSize


@pytest.fixture(scope="session")
def job() -> Any:
    """Make one: a variant by name, with some fields changed."""
    size = ModelSize(vocabulary=11, max_len=10, d_model=16, layers=2, heads=2, head_dim=8, feed_forward=16)

    def make(variant: str = "momentum", **changes: Any) -> Job:
        found = Variant.parse(variant)
        made = Job(
            task="copy",
            variant=variant,
            seed=0,
            model=ModelConfig(
                size=size, attention=found.attention, connection=found.connection, momenta=TASK.momenta
            ),
            schedule=Schedule(
                epochs=4, iterations=5, batch=4, seq_len=10, evaluations=2, evaluation_batches=2
            ),
            optimization=Optimization(drop_epoch=3),
            kernels=Kernels(),
        )
        return replace(made, **changes)

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Jobs this small are slowed by threads that wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
