"""Profiles that are made once for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtbench.profile.flame import py_spy

ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "fixtures" / "profile"
SMALL = ("--attention", "momentum", "--form", "chunked", "--seq-len", "64", "--heads", "2", "--threads", "1")


def needs_py_spy() -> None:
    """Nobody would see in CI that it is no longer tried."""
    if py_spy() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("py-spy is not installed")


def command(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtbench", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep of one row, which was profiled after it was timed."""
    folder = tmp_path_factory.mktemp("swept")
    done = command(folder, "run", "--backend", "jax", *SMALL, "--out", "run", "--profile", "slowest:1")
    return folder / "run", done


@pytest.fixture(scope="session")
def eager(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A profile of eager torch, forward and backward."""
    folder = tmp_path_factory.mktemp("eager")
    words = (
        "--backend",
        "torch-eager",
        "--mode",
        "forward_backward",
        *SMALL,
        "--out",
        "made",
        "--calls",
        "5",
    )
    return folder / "made", command(folder, "profile", *words)


@pytest.fixture
def recorded() -> Path:
    """Traces and counters as their tools write them."""
    return RECORDED
