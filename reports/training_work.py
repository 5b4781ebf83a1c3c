"""How many operations a training asks for, by its definition."""

from __future__ import annotations

from mtbench.spec import Case
from mtbench.training.settings import Job
from mtbench.work import operations

__all__ = ["model_operations"]


def model_operations(job: Job) -> float:
    """Floating-point operations that one token of a training step needs, forward and backward.

    Counted are the matrix products of the layers, each twice as much again in the backward, and the least
    that the attention needs (`operations`). The embedding, the head and everything elementwise are not.

    >>> from mtbench.training.settings import Kernels, Optimization, Schedule
    >>> from mtbench.transformer.config import ModelConfig, ModelSize
    >>> size = ModelSize(vocabulary=257, max_len=784, layers=8)
    >>> job = Job(
    ...     task="mnist",
    ...     variant="linear",
    ...     seed=0,
    ...     model=ModelConfig(size=size, attention="linear"),
    ...     schedule=Schedule(epochs=1, iterations=1, batch=1, seq_len=784),
    ...     optimization=Optimization(),
    ...     kernels=Kernels(),
    ... )
    >>> products = 3 * 8 * 2 * (4 * 256 * 256 + 2 * 256 * 1024)
    >>> model_operations(job) - products == 8 * 8 * 32 * 32 * (6 + 6)
    True
    """
    size, schedule = job.model.size, job.schedule
    width = size.heads * size.head_dim
    products = 2 * (4 * size.d_model * width + 2 * size.d_model * size.feed_forward)
    case = Case(
        spec=job.model.spec(causal=True),
        batch=1,
        heads=size.heads,
        seq_len=schedule.seq_len,
        head_dim=size.head_dim,
        mode="forward_backward",
    )
    return size.layers * (3 * products + operations(case) / schedule.seq_len)
