"""The search over tiles of the Pallas kernels, in the interpreter: checked, and not timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.jax
@pytest.mark.triton
def test_choices_are_checked_and_a_wrong_one_is_said(tmp_path: Path) -> None:
    """Chunks of 64 positions are right; of 96 there is one in a segment of 128, the rest of which is left
    out."""
    command = [
        *(sys.executable, str(ROOT / "scripts" / "tune_pallas.py"), "--out", "found"),
        *("--device", "cpu", "--shape", "1,2,256,16", "--kind", "momentum"),
        *("--rows", "0,96", "--block", "32", "--warps", "8", "--stages", "0", "--segments", "2"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    right, wrong = json.loads((tmp_path / "found" / "pallas.json").read_text())
    chosen = {"rows": 64, "value_dim": 32, "blocks": 2, "warps": 8, "segments": 2}
    assert chosen.items() <= right["config"].items()
    assert right["right"], right
    assert 0 < right["errors"]["o"] < 5e-3
    assert not wrong["right"]
    assert [line.endswith("WRONG") for line in done.stdout.splitlines()] == [False, True]
