"""What scripts/scale_rank.py does with a task that fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts import scale_rank


def test_a_failure_of_all_ranks_is_told_from_that_of_one(tmp_path: Path) -> None:
    def ask(number: int, rank: int, ranks: int) -> bool:
        return bool(
            scale_rank.failed_alike(f"{tmp_path}/meet-{number}", rank, ranks, 2.0 if ranks < 3 else 0.1)
        )

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda rank: ask(0, rank, 2), range(2)))
        assert ask(1, 0, 1)
        assert not any(pool.map(lambda rank: ask(2, rank, 3), range(2)))  # the third is still at work
