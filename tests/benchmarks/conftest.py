"""Off by default: `pytest tests/benchmarks --benchmark-only`, or `nox -s compare`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench.registry import BUILTIN_BACKENDS


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mtbench")
    group.addoption(
        "--backend",
        default="torch-eager",
        choices=list(BUILTIN_BACKENDS),
        help="the backend to benchmark: one a process, since frameworks disturb each other in one",
    )
    group.addoption("--device", default="cpu", choices=["cpu", "cuda"])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("benchmark_only") else True
