"""Sides made of numbers, and run folders made of sides."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench.compare.sides import Side, TimedRow
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement
from mtbench.run_folder import RunFolder
from mtbench.spec import AttentionSpec, Case

BACKENDS = ("torch-eager", "torch-compile", "triton", "jax")
MakeSide = Callable[..., Side]
MakeRun = Callable[..., Path]


def launches(
    center_ms: float = 1.0, count: int = 8, *, noise: float = 0.01, seed: int = 0
) -> tuple[float, ...]:
    """Medians of launches around a center, always the same ones."""
    rng = np.random.default_rng(seed)
    return tuple(float(x) for x in center_ms * np.exp(noise * rng.normal(0, 1, count)))


def simulate(
    *,
    cases: int = 200,
    backends: int = 4,
    count: int = 8,
    noise: float = 0.015,
    between: float = 0.005,
    drift: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Medians [case, launch] of two runs of the same code, the second drifted; and each case's backend."""
    rng = np.random.default_rng(seed)
    spread = noise * np.sqrt(6 / rng.chisquare(6, cases))
    names = [BACKENDS[case % backends] for case in range(cases)]

    def run(shift: float) -> np.ndarray:
        logs = rng.normal(0, 1, (cases, count)) * spread[:, None] + rng.normal(0, between, cases)[:, None]
        return np.exp(logs + shift)

    return run(0.0), run(math.log1p(drift)), names


def side(rows: Mapping[str, Any], *, path: str = "side", **more: Any) -> Side:
    """A side of `id: launches` or `id: status`; the backend is the id's first part."""
    return Side(
        path=Path(path),
        rows={
            name: (
                TimedRow(id=name, backend=name.split("/")[0], status=value, reason=f"why {value}")
                if isinstance(value, str)
                else TimedRow(id=name, backend=name.split("/")[0], status="ok", wall_ms=tuple(value))
            )
            for name, value in rows.items()
        },
        **more,
    )


def write_run(
    folder: Path,
    rows: Mapping[tuple[str, int], Sequence[float] | str],
    *,
    device_ms: Mapping[tuple[str, int], Sequence[float]] | None = None,
    cpu: str = "Some CPU",
    threads: int = 2,
    commit: str = "0123456789abcdef",
    **header: Any,
) -> Path:
    """A run folder of `(backend, seq_len): medians of the launches, ms` or `: status`."""
    with RunFolder.create(folder) as run:
        run.write_header(
            {
                "mtbench": "0.1.0",
                "command": ["mtbench", "run"],
                "started": "2026-11-24T03:04:05+00:00",
                "finished": "2026-11-24T03:11:47+00:00",
                "outcome": "complete",
                "plan": {"preset": None, "seed": 0, "sampling": {}, "rows": []},
                "environment": {
                    "os": "Linux",
                    "cpu": {"model": cpu, "cores": 4, "affinity": 2, "machine": "x86_64"},
                    "memory_bytes": 2**34,
                    "gpus": [],
                    "python": "3.11.7",
                    "packages": {"torch": "2.13.0"},
                    "threads": threads,
                    "git": {"commit": commit, "dirty": False},
                },
                "workers": {},
                "support": [],
                **header,
            }
        )
        for (backend, seq_len), value in rows.items():
            timed = None if isinstance(value, str) else samples(value)
            device = None if device_ms is None else device_ms.get((backend, seq_len))
            run.append(
                Measurement(
                    case=Case(spec=AttentionSpec(kind="softmax"), seq_len=seq_len),
                    backend=backend,
                    form="parallel",
                    status=value if isinstance(value, str) else "ok",
                    reason=f"why {value}" if isinstance(value, str) else "",
                    wall_ms=timed,
                    device_ms=None if device is None else samples(device),
                )
            )
    return folder


def samples(medians: Sequence[float]) -> Samples:
    """Three samples a launch."""
    values = [m * factor for m in medians for factor in (0.99, 1.0, 1.02)]
    return Samples(values, [3] * len(medians))


def benchmark_file(path: Path, medians_s: Mapping[str, float], **changes: Any) -> Path:
    """What pytest-benchmark saves: one launch."""
    data = {
        "machine_info": {
            "node": path.stem,
            "machine": "x86_64",
            "python_version": "3.11.7",
            "system": "Linux",
            "cpu": {"brand_raw": "Some CPU", "count": 4, **changes.pop("cpu", {})},
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "benchmarks": [
            {
                "name": name,
                "fullname": f"tests/test_x.py::{name}",
                "stats": {"median": seconds},
                "extra_info": {},
            }
            for name, seconds in medians_s.items()
        ],
        "version": "5.1.0",
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """Forty cases of four backends; in B one is a fifth slower, one a fifth faster and one fails."""
    keys = [(backend, 16 * (n + 1)) for backend in BACKENDS for n in range(10)]
    a: dict[tuple[str, int], Any] = {key: launches(1.0, seed=n) for n, key in enumerate(keys)}
    b: dict[tuple[str, int], Any] = {key: launches(1.0, seed=100 + n) for n, key in enumerate(keys)}
    b[keys[3]] = launches(1.2, seed=103)
    b[keys[14]] = launches(0.8, seed=114)
    b[keys[25]] = "wrong"
    a[("triton", 512)] = b[("triton", 512)] = "unsupported"
    b[("triton", 1024)] = launches(1.0)
    return write_run(tmp_path / "a", a), write_run(tmp_path / "b", b, commit="fedcba9876543210")
