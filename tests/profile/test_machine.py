"""What a machine reaches is measured once and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtbench.profile.machine import known, measured, remember
from tests.profile.synthetic import MACHINE

HERE = {"os": "Linux", "cpu": {"model": "x"}, "gpus": [], "python": "3.11", "packages": {}, "threads": 1}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_it_is_kept_by_machine_framework_and_device() -> None:
    assert known(HERE, "torch", "cuda", "bfloat16") is None
    remember(HERE, "torch", "cuda", MACHINE)
    other = replace(MACHINE, call_ms=0.5)
    remember(HERE, "jax", "cuda", other)
    assert known(HERE, "torch", "cuda", "bfloat16") == MACHINE
    assert known(HERE, "torch", "cuda", "float16") == MACHINE  # the units are the same
    assert known(HERE, "jax", "cuda", "bfloat16") == other
    assert known(HERE, "torch", "cpu", "bfloat16") is None
    assert known({**HERE, "threads": 2}, "torch", "cuda", "bfloat16") is None
    assert known({**HERE, "git": {"commit": "another"}}, "torch", "cuda", "bfloat16") == MACHINE


def test_the_copy_is_the_fastest_that_is_known_of_the_device() -> None:
    slow, fast, other = (replace(MACHINE, copy_bytes_per_s=rate) for rate in (3e12, 4e12, 9e12))
    remember(HERE, "jax", "cuda", slow)
    assert known(HERE, "jax", "cuda", "bfloat16") == slow
    remember(HERE, "torch", "cuda", fast)
    remember(HERE, "torch", "cpu", other)
    assert known(HERE, "jax", "cuda", "bfloat16") == known(HERE, "torch", "cuda", "bfloat16") == fast
    remember(HERE, "numpy", "cuda", replace(MACHINE, copy_bytes_per_s=None))
    assert known(HERE, "numpy", "cuda", "bfloat16") == fast


def test_a_dtype_that_was_not_measured_is_not_known() -> None:
    remember(HERE, "torch", "cpu", replace(MACHINE, matmul_flop_per_s={"float32": 5e10}))
    assert known(HERE, "torch", "cpu", "float32") is not None
    assert known(HERE, "torch", "cpu", "bfloat16") is None


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    remember(HERE, "torch", "cuda", MACHINE)
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"reached": 3}')
    assert known(HERE, "torch", "cuda", "bfloat16") is None
    remember(HERE, "torch", "cuda", MACHINE)
    assert known(HERE, "torch", "cuda", "bfloat16") == MACHINE


def test_measured() -> None:
    from mtbench.frameworks import load_framework

    found = measured(load_framework("numpy"), "cpu", "float32")
    assert found.copy_bytes_per_s
    assert found.copy_bytes_per_s > 1e8
    assert found.matmul_flop_per_s["float32"] > 1e8
    assert 0 < found.operator_ms < found.call_ms < 1.0
