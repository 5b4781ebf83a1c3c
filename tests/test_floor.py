"""The floor of a row, the rate it is reckoned by, and rows that do less than the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, FunctionBackend
from mtbench.backend import Partial
from mtbench.floor import Ceilings, floor_bytes, floor_ms, read_ceilings
from mtbench.frameworks import load_framework
from mtbench.measure.clocks import Sampling
from mtbench.measure.statistics import Samples
from mtbench.results import DOES_LESS, Measurement, Run
from mtbench.sweep.measure import Measurer
from reports.exports import flat_row
from reports.table import all_rows


def test_the_floor_counts_every_tensor_once() -> None:
    case = Case(batch=2, heads=3, seq_len=5, head_dim=7, value_dim=11, dtype="float16")
    q, k, v, o = 2 * 3 * 5 * 7, 2 * 3 * 5 * 7, 2 * 3 * 5 * 11, 2 * 3 * 5 * 11
    assert floor_bytes(case) == 2 * (q + k + v + o)
    both = case.replace(mode="forward_backward")
    # forward as before; backward reads q, k, v, o, do and writes dq, dk, dv
    assert floor_bytes(both) == 2 * ((q + k + v + o) + (q + k + v + o + o) + (q + k + v))
    # padding is not read, and its gradients are written
    padded = replace(both, lengths=(5, 2))
    keys, real = 3 * 10 * (7 + 11), 3 * 7 * (7 + 11)
    assert floor_bytes(replace(padded, mode="forward")) == 2 * (q + o + real)
    assert floor_bytes(padded) == 2 * ((q + o + real) + (q + o + o + real) + (q + keys))
    assert floor_ms(case, {}) is None
    assert floor_ms(case, {"cpu": Ceilings()}) is None
    assert floor_ms(case, {"cpu": Ceilings(copy_bytes_per_s=1e6)}) == pytest.approx(floor_bytes(case) / 1e3)
    assert floor_ms(case, {"cuda": Ceilings(copy_bytes_per_s=1e6)}) is None


def test_the_best_rate_of_a_device_counts_and_nothing_else() -> None:
    workers = {
        "a on cuda": {"copy_bytes_per_s": 2e12, "matmul_flop_per_s": {"bfloat16": 7e14}},
        "b on cuda": {"copy_bytes_per_s": 3e12, "matmul_flop_per_s": {"bfloat16": 6e14, "float32": 5e13}},
        "a on cpu": {"copy_bytes_per_s": 5e10, "matmul_flop_per_s": {"float32": 2e11, "junk": 9e99}},
        "b on cpu": {},
    }
    found = Run(folder=Path(), header={"workers": workers}, measurements=()).ceilings[""]
    assert found["cuda"].copy_bytes_per_s == 3e12
    assert (found["cuda"].matmul("bfloat16"), found["cuda"].matmul("float32")) == (7e14, 5e13)
    assert found["cuda"].matmul("float16") == 7e14
    assert found["cpu"] == Ceilings(copy_bytes_per_s=5e10, matmul_flop_per_s={"float32": 2e11})
    assert found["cpu"].matmul("bfloat16") is None


@pytest.mark.parametrize(
    "workers",
    [
        {"a on cpu": {"copy_bytes_per_s": None, "matmul_flop_per_s": None}},
        {"a on cpu": {"copy_bytes_per_s": "fast", "matmul_flop_per_s": {"float32": "fast"}}},
        {"a on cpu": {"copy_bytes_per_s": float("nan"), "matmul_flop_per_s": {"float32": -1.0}}},
        {"a on the moon": {"copy_bytes_per_s": 1e9}, "a": {"copy_bytes_per_s": 1e9}, "b on cpu": 1},
        [],
        None,
    ],
)
def test_what_is_no_rate_is_no_ceiling(workers: Any) -> None:
    assert all(found == Ceilings() for found in read_ceilings(workers).values())


def test_a_row_is_shown_beside_its_floor() -> None:
    case = Case(batch=8, heads=16, seq_len=4096, dtype="bfloat16", device="cuda")
    time = Samples([0.2] * 30)
    row = Measurement(case=case, backend="x", form="y", status="ok", wall_ms=time, device_ms=time)
    rate = floor_bytes(case) / 0.1e-3  # a floor of .1 ms

    def shown(copy_bytes_per_s: float | None) -> str | None:
        table = all_rows([row], {"": {"cuda": Ceilings(copy_bytes_per_s=copy_bytes_per_s)}})
        titles = [column.title for column in table.columns]
        if "over the floor" not in titles:
            return None
        return table.rows[0][1][titles.index("over the floor")].text

    assert shown(rate) == "2.00×"
    assert shown(None) is None
    ceilings = {"cuda": Ceilings(copy_bytes_per_s=rate)}
    assert flat_row(row, ceilings)["floor_ms"] == pytest.approx(0.1)
    assert flat_row(row)["floor_ms"] is None


def test_a_row_that_does_less_is_timed_and_not_ranked() -> None:
    def whole(q: Any, k: Any, v: Any, case: Case) -> Any:
        weights = np.exp(q @ k.swapaxes(-1, -2) * case.softmax_scale) * np.tri(q.shape[2])
        return ((weights / weights.sum(-1, keepdims=True)) @ v).astype(v.dtype)

    backend = FunctionBackend(name="x", framework="numpy", functions={("softmax", "part"): whole})
    case = Case(spec=AttentionSpec(kind="softmax"), heads=1, seq_len=9, head_dim=4)
    sampling = Sampling(least=5, least_s=0.0, limit_s=0.01, warmup_s=0.0)

    def measured(of: FunctionBackend) -> Measurement:
        return Measurer(of, load_framework("numpy"), "cpu").measure(
            case, "part", sampling, lambda stage: None
        )

    plain = measured(backend)
    assert (plain.status, plain.timed, plain.ranked) == ("ok", True, True), plain.reason
    partial = Partial(what="without the sum", applies=lambda case, form: form == "part")
    object.__setattr__(backend, "partials", (partial,))
    less = measured(backend)
    assert (less.status, less.timed, less.ranked) == ("ok", True, False), less.reason
    assert (less.flags[0], less.reason) == (DOES_LESS, "without the sum")
    assert replace(less, flags=()).ranked
