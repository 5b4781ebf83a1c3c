"""The scripts that time a step run to their end, on a CPU and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.torch


def said(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / words[0]), "--device", "cpu", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_times_every_attention_and_says_what_is_met(tmp_path: Path) -> None:
    told = said(
        *("time_training_step.py", "--seq-len", "16", "--tokens", "16", "--precision", "float32"),
        *("--backend", "torch-eager", "--rounds", "1", "--json", str(tmp_path / "x.json")),
    )
    assert "float32 seq_len 16: softmax" in told
    assert "met: float32: momentum at most 1.1 times linear" in told
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [len(row["step_ms"]) for row in rows] == [8] * 3


def test_a_step_on_images(tmp_path: Path) -> None:
    told = said(
        *("time_image_step.py", "--batch", "1", "--layers", "1", "--steps", "2", "--variant", "momentum"),
        *("--backend", "torch-eager", "--ways", "plain", "--out", str(tmp_path / "o")),
    )
    assert "momentum, as it is: " in told
    (row,) = json.loads((tmp_path / "o" / "steps.json").read_text())["rows"]
    assert len(row["step_ms"]) == 2
    assert row["tokens_per_s"] > 0
