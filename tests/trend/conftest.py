"""Run folders over commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare.conftest import BACKENDS, write_run

Key = tuple[str, int]
KEYS: list[Key] = [(backend, 64 * 2**n) for backend in BACKENDS for n in range(3)]


def run_of(
    folder: Path, number: int, scale: Mapping[Key, float] | None = None, status: Any = None, **header: Any
) -> Path:
    """The run of a day: all cases take 1 ms times their scale."""
    rng = np.random.default_rng(number)
    scale = scale or {}
    rows: dict[Key, Any] = {
        key: tuple(float(v) for v in scale.get(key, 1.0) * np.exp(0.01 * rng.normal(0, 1, 4))) for key in KEYS
    }
    rows |= status or {}
    return write_run(
        folder,
        rows,
        commit=f"{number:02d}cafe0123456789",
        **{"started": f"2026-10-{number + 1:02d}T03:04:05+00:00", **header},
    )


@pytest.fixture
def make_runs(tmp_path: Path) -> Callable[..., list[Path]]:
    """Twelve runs: one case is 20% slower from the seventh on, another a third faster from the ninth."""

    def make(count: int = 12, folder: str = "runs", **header: Any) -> list[Path]:
        return [
            run_of(
                tmp_path / folder / f"run-{n:02d}",
                n,
                {KEYS[1]: 1.2 if n >= 6 else 1.0, KEYS[5]: 0.67 if n >= 8 else 1.0},
                {KEYS[3]: "crash"} if n == 2 else None,
                **header,
            )
            for n in range(count)
        ]

    return make
