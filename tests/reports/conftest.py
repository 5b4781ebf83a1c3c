"""Synthetic runs, built through the classes that write real ones."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtbench.measure.statistics import Samples
from mtbench.results import Agreement, Measurement
from mtbench.run_folder import RunFolder
from mtbench.spec import AttentionSpec, Case

FORMS = {
    "torch-eager": {
        "softmax": ("parallel", "chunked", "sdpa"),
        "linear": ("parallel", "chunked", "recurrent"),
        "momentum": ("parallel", "chunked", "recurrent"),
    },
    "torch-compile": {
        "softmax": ("parallel", "flex"),
        "linear": ("parallel", "chunked"),
        "momentum": ("parallel", "chunked"),
    },
    "triton": {"softmax": ("fused",), "linear": ("fused",), "momentum": ("fused",)},
    "jax": {
        "softmax": ("parallel", "xla"),
        "linear": ("parallel", "chunked", "recurrent"),
        "momentum": ("parallel", "chunked", "recurrent"),
    },
}
SPEED = {"torch-eager": 1.0, "torch-compile": 0.72, "triton": 1.0, "jax": 1.25}
FAST_FORM = {"sdpa": 0.3, "flex": 1.4, "xla": 0.9}


def samples(center: float, width: float = 0.02, n: int = 15, seed: int = 0) -> Samples:
    """Samples around a median, always the same ones."""
    noise = random.Random(seed)
    return Samples(center * (1 + width * noise.uniform(-1, 1)) for _ in range(n))


def measurement(
    ms: float | None = 1.0,
    *,
    attention: str = "softmax",
    backend: str = "torch-eager",
    form: str = "parallel",
    status: str = "ok",
    width: float = 0.02,
    n: int = 15,
    spec: dict[str, Any] | None = None,
    row: dict[str, Any] | None = None,
    **case: Any,
) -> Measurement:
    """One hand-made row: `ms` is about its median, None is no time."""
    case.setdefault("seq_len", 256)
    return Measurement(
        case=Case(spec=AttentionSpec(kind=attention, **(spec or {})), **case),
        backend=backend,
        form=form,
        status=status,
        wall_ms=None if ms is None else samples(ms, width, n),
        **(row or {}),
    )


def header(rows: Iterable[Measurement] = (), **changes: Any) -> dict[str, Any]:
    """run.json as a real run writes it."""
    return {
        "mtbench": "0.1.0",
        "command": ["mtbench", "run", "--preset", "default"],
        "started": "2026-11-24T03:04:05+00:00",
        "finished": "2026-11-24T03:11:47+00:00",
        "outcome": "complete",
        "plan": {"preset": "default", "seed": 0, "sampling": {}, "rows": [row.id for row in rows]},
        "environment": {
            "os": "Linux 6.1 x86_64",
            "cpu": {"model": "Some CPU @ 2.60GHz", "cores": 4, "affinity": 2, "machine": "x86_64"},
            "memory_bytes": 16 * 2**30,
            "gpus": [],
            "python": "3.11.7",
            "packages": {"torch": "2.13.0", "jax": "0.8.1", "triton": None},
            "threads": 2,
            "git": {"commit": "0123456789abcdef", "dirty": False},
        },
        "workers": {"torch-eager": {"torch": "2.13.0+cpu", "mkl": True}},
        "support": [
            {
                "backend": backend,
                "framework": "jax" if backend == "jax" else "torch",
                "forms": {kind: list(forms) for kind, forms in table.items()},
                "limits": [
                    {
                        "kind": "notimpl",
                        "what": "kv_heads other than heads",
                        "reason": "grouped heads are in the spec and in no backend yet",
                    }
                ],
                "unavailable": {"cpu": None, "cuda": "no CUDA device"},
            }
            for backend, table in FORMS.items()
        ],
        **changes,
    }


def full_rows(
    lengths: Iterable[int] = (128, 256, 512, 1024, 2048), device: str = "cpu", batches: Iterable[int] = (1,)
) -> Iterator[Measurement]:
    """A realistic run on a CPU: seq_len, batch and head_dim swept around a base point, four backends, two
    modes, all that may go wrong."""
    base = {"batch": 1, "heads": 8, "head_dim": 64, "seq_len": 512}
    points = [base | {"seq_len": n, "batch": b} for n in lengths for b in batches]
    points += [base | {"batch": b} for b in (2, 4)] + [base | {"head_dim": d} for d in (32, 128)]
    number = 0
    for sizes in points:
        for mode in ("forward", "forward_backward"):
            for backend, table in FORMS.items():
                for kind, forms in table.items():
                    for form in forms:
                        number += 1
                        yield _realistic(sizes, mode, backend, kind, form, device, number)


def _realistic(
    sizes: dict[str, int], mode: str, backend: str, kind: str, form: str, device: str, number: int
) -> Measurement:
    noise = random.Random(number)
    case = Case(spec=AttentionSpec(kind=kind), mode=mode, device=device, **sizes)
    n, d, bh = case.seq_len, case.head_dim, case.batch * case.heads
    name: dict[str, Any] = {"case": case, "backend": backend, "form": form, "layout": "bhnd"}
    if backend == "triton" and mode == "forward_backward":
        return Measurement(
            **name,
            status="unsupported",
            reason="notimpl: mode forward_backward: the backward is not written yet",
        )
    if form == "flex":
        return Measurement(**name, status="unavailable", reason="FlexAttention has no CPU kernel here")
    if backend == "jax" and form == "recurrent" and n >= 2048 and mode == "forward_backward":
        return Measurement(**name, status="timeout", reason="took longer than 60 s")
    if backend == "torch-eager" and form == "parallel" and kind == "momentum" and n >= 2048 and d == 64:
        return Measurement(**name, status="oom", reason="needs about 17.2 GiB and 14.9 GiB are free")
    quadratic = form in ("parallel", "sdpa", "xla") or (kind == "softmax")
    flops = 4 * bh * n * d * (n if quadratic else 2 * 64 + 2 * d)
    factor = (
        SPEED[backend] * FAST_FORM.get(form, 1.0) * {"softmax": 1.3, "linear": 1.0, "momentum": 1.5}[kind]
    )
    overhead = 0.02 * n if form == "recurrent" else 0.08
    ms = overhead + flops / 6e7 * factor * (2.7 if mode == "forward_backward" else 1) * noise.uniform(
        0.95, 1.1
    )
    relative = 2e-7 * math.sqrt(n / 128) * noise.uniform(0.6, 1.7) * (4 if form == "recurrent" else 1)
    arrays = ("o", "dq", "dk", "dv") if mode == "forward_backward" else ("o",)
    wrong = backend == "jax" and form == "chunked" and kind == "momentum" and n == 256
    agreement = {
        a: Agreement(
            relative=0.3 if wrong else relative * noise.uniform(0.5, 1), max_abs=1e-6, tolerance=1e-5
        )
        for a in arrays
    }
    interpreted = backend == "triton" and device == "cpu"
    size = 4 * bh * n * d * 4 + (4 * bh * n * n if quadratic and form != "sdpa" else 0)
    wall = samples(ms, noise.choice((0.01, 0.03, 0.1)), 12, number)
    return Measurement(
        **name,
        status="wrong" if wrong else "ok",
        reason="interpreted" if interpreted else "",
        flags=("interpreted",) if interpreted else ("noisy",) if noise.random() < 0.03 else (),
        wall_ms=None if interpreted else Samples(wall.values),
        wall_reason="interpreted" if interpreted else "interval",
        device_ms=None if device == "cpu" else samples(ms * 0.8, 0.01, 12, number),
        cache="warm",
        build_s=None if backend != "jax" else noise.uniform(0.2, 2),
        first_call_s=noise.uniform(0.01, 5),
        peak_memory_bytes=None if interpreted else int(size * noise.uniform(1, 1.3)),
        memory_method="VmHWM",
        agreement=agreement,
        compared="all rows",
    )


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder of some rows; `header` changes go by keyword."""

    def make(rows: Iterable[Measurement] = (), folder: str = "run", **changes: Any) -> Path:
        return write_run(tmp_path / folder, list(rows), **changes)

    return make


def write_run(path: Path, rows: list[Measurement], **changes: Any) -> Path:
    """A run folder on disk."""
    folder = RunFolder.create(path)
    folder.write_header(header(rows, **changes))
    for row in rows:
        folder.append(row)
    folder.close()
    return path


@pytest.fixture
def row() -> Callable[..., Measurement]:
    """`measurement`, the maker of hand-made rows."""
    return measurement


@pytest.fixture(scope="session")
def sweep() -> Callable[..., Iterator[Measurement]]:
    """`full_rows`, a realistic run."""
    return full_rows


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """`write_run`, for runs that several tests share."""
    return write_run


@pytest.fixture
def on_gpu() -> Callable[..., Measurement]:
    """Give a row a device time."""
    return lambda row, ms: dataclasses.replace(row, device_ms=samples(ms))
