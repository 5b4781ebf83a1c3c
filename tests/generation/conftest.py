"""Checkpoints of models that were trained for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtbench.training.folder import TrainingFolder
from mtbench.training.settings import Job, Kernels, Optimization, Schedule
from mtbench.training.tasks import load_task
from mtbench.training.tasks.image_settings import sized
from mtbench.training.variants import Variant
from mtbench.transformer.config import ModelConfig

VARIANTS = ("softmax", "linear", "momentum+adaptive", "momentum-released")


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """The checkpoints of the variants that are named, of one run on digits."""
    torch = pytest.importorskip("torch")
    from mtbench.training.trainer import Trainer

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "run"
    size = sized(64, d_model=16, layers=2, heads=2, head_dim=8, feed_forward=16)
    jobs = []
    for name in VARIANTS:
        variant = Variant.parse(name)
        config = ModelConfig(
            size=size,
            attention=variant.attention,
            connection=variant.connection,
            momenta=load_task("digits").momenta,
        )
        jobs.append(
            Job(
                task="digits",
                variant=name,
                seed=0,
                model=config,
                schedule=Schedule(epochs=1, iterations=4, batch=4, seq_len=64, evaluation_batches=1),
                optimization=Optimization(lr=1e-2),
                kernels=Kernels(),
            )
        )
    with TrainingFolder.create(folder) as made:
        (folder / "checkpoints").mkdir()
        plan = {"jobs": [job.to_dict() for job in jobs], "rows": [job.id for job in jobs]}
        made.write_header({"kind": "training", "plan": plan, "environment": {}, "jobs": {}})
        for job in jobs:
            assert len(list(Trainer(job, made.checkpoint(job.id), every_s=0).run())) == 1

    def of(*names: str) -> list[Path]:
        return [folder / "checkpoints" / f"{name}-seed0.pt" for name in names]

    return of


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slowed by threads that wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
