"""What is compiled is kept on disk, and a row says what it found there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench.results import Run
from tests.conftest import Mtbench


@pytest.mark.parametrize(
    ("backend", "form"),
    [
        pytest.param("jax", "chunked", marks=pytest.mark.jax),
        pytest.param("torch-compile", "chunked", marks=pytest.mark.torch),
        pytest.param("torch-eager", "chunked", marks=pytest.mark.torch),
    ],
)
def test_a_second_run_compiles_nothing(tmp_path: Path, mtbench: Mtbench, backend: str, form: str) -> None:
    found = []
    for name in ("first", "second"):
        done = mtbench(
            *("run", "--backend", backend, "--form", form, "--attention", "linear", "--heads", "1"),
            *("--seq-len", "70", "--head-dim", "6", "--out", name),
            TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),
            JAX_COMPILATION_CACHE_DIR=str(tmp_path / "jax"),
        )
        assert done.returncode == 0, done.stderr
        (log,) = (tmp_path / name / "logs").iterdir()
        assert "leaked" not in log.read_text()
        (row,) = Run.load(tmp_path / name)
        found.append(row.compiled)
    first, second = found
    if backend == "torch-eager":
        assert first == second == {}
        return
    assert first["anew"] > 0
    assert second["anew"] == 0
    assert second["from_cache"] > 0
