"""What the machine can reach: measured on a CPU, by every framework, beyond its cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench.frameworks import load_framework
from mtbench.measure import ceilings as measured
from mtbench.measure.ceilings import ceilings, last_cache_bytes


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_a_cpu_has_a_copy_and_a_product(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setattr(measured, "COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(measured, "MOST_COPIED_BYTES", 1 << 20)
    monkeypatch.setattr(measured, "MATMUL_SIZES", {"cpu": (64, 128)})
    found = ceilings(load_framework(name), "cpu")
    assert found["copy_bytes_per_s"] > 1e8
    assert set(found["matmul_flop_per_s"]) == {"float32"}
    assert found["matmul_flop_per_s"]["float32"] > 1e7


def test_memory_that_is_short_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    framework = load_framework("numpy")

    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(framework, "flush_cache", none_left)
    monkeypatch.setattr(measured, "wall_samples", none_left)
    monkeypatch.setattr(measured, "MATMUL_SIZES", {"cpu": (64,)})
    assert ceilings(framework, "cpu") == {"copy_bytes_per_s": None, "matmul_flop_per_s": {}}


def test_each_part_of_the_last_cache_counts_once(tmp_path: Path) -> None:
    for cpu, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        for index, (level, size, of) in enumerate(((1, "32K", str(cpu)), (3, "16384K", shared))):
            cache = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            cache.mkdir(parents=True)
            for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", of)):
                (cache / name).write_text(f"{text}\n")
    assert last_cache_bytes(tmp_path) == 32 << 20
    assert last_cache_bytes(tmp_path / "nothing") == 0
