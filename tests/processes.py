"""A check in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ["in_a_fresh_process"]


def in_a_fresh_process(check: Callable[..., None], *arguments: Any) -> None:
    """As in a worker, which has one framework: threads of another would come and go in the memory that is
    read, and what earlier tests left in the allocator with them."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(check, *arguments).result()
