"""The script that times translation by length runs to its end, on a CPU and small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.torch


def test_it_times_every_attention_and_says_where_it_turns(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "time_translation.py"), "--device", "cpu"),
            *("--seq-len", "4,8", "--tokens", "8", "--precision", "float32", "--backend", "torch-eager"),
            *("--rounds", "1", "--layers", "1", "--what", "refine,write", "--out", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for what in ("refine", "write"):
        assert f"{what} 2 x 4: softmax" in done.stdout
        for kind in ("linear", "momentum"):
            assert f"{what}: {kind} is faster than softmax " in done.stdout
    rows = json.loads((tmp_path / "times.json").read_text())["rows"]
    assert [len(row["seconds"]) for row in rows] == [1] * 12
