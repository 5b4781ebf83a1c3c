"""The script that times a step runs to its end, on a CPU and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.torch


def test_it_times_every_attention_and_says_what_is_met(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "time_training_step.py"), "--device", "cpu"),
            *("--seq-len", "16", "--tokens", "16", "--precision", "float32", "--backend", "torch-eager"),
            *("--rounds", "1", "--json", str(tmp_path / "x.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "float32 seq_len 16: softmax" in done.stdout
    assert "met: float32: momentum at most 1.1 times linear" in done.stdout
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [len(row["step_ms"]) for row in rows] == [8] * 3
