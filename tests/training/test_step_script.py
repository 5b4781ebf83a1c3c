"""The scripts that time a step run to their end, on a CPU and small."""

from __future__ import annotations

import itertools
import json
import random
import string
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


@pytest.mark.parametrize("task", ["mnist", "translation-refined"])
def test_a_step_of_a_task(task: str, tmp_path: Path) -> None:
    told = said(
        *("time_task_step.py", "--task", task, "--batch", "1", "--layers", "1", "--steps", "4"),
        *("--variant", "momentum", "--backend", "torch-eager", "--ways", "unpadded,plain"),
        *("--shapes", "1", "--out", str(tmp_path / "o")),
    )
    assert f"{task} momentum, plain: " in told
    unpadded, plain = json.loads((tmp_path / "o" / "steps.json").read_text())["rows"]
    assert 0 < len(plain["step_ms"]) <= 4
    assert plain["tokens_per_s"] > 0
    assert plain["loss"] == unpadded["loss"]  # a CPU pads nothing


def test_a_step_on_a_text(tmp_path: Path) -> None:
    """Its subwords are made first, of words enough."""
    rng = random.Random(0)
    (tmp_path / "text").mkdir()
    for split, language in itertools.product(("train", "valid", "test"), ("en", "de")):
        words = ["".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(1200)]
        lines = [" ".join(words[at : at + 4]) for at in range(0, len(words), 4)]
        (tmp_path / "text" / f"{split}.{language}").write_text("\n".join(lines) + "\n")
    told = said(
        *("time_task_step.py", "--task", "translation", "--preset", "short", "--layers", "1", "--steps", "4"),
        *("--data", str(tmp_path / "text"), "--ways", "plain", "--variant", "linear"),
        *("--backend", "torch-eager", "--out", str(tmp_path / "o")),
    )
    assert "translation linear, plain: " in told
