"""Profiles that are made once for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtbench.cli import main
from mtbench.profile.flame import py_spy

ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "fixtures" / "profile"


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


@pytest.fixture
def recorded() -> Path:
    """Traces and counters as their tools write them."""
    return RECORDED


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line that a command is refused with."""

    def run(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["mtbench", *words])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err
        assert (end.value.code, len(told.splitlines())) == (2, 1), told
        return told

    return run
