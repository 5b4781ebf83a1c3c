"""The floor of a row, the rate it is reckoned by, and rows that do less than the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, FunctionBackend
from mtbench.backend import Partial
from mtbench.floor import floor_bytes, floor_ms
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
    assert floor_ms(case, None) is None
    assert floor_ms(case, 1e6) == pytest.approx(floor_bytes(case) / 1e3)


def test_the_best_copy_of_a_run_counts_and_nothing_else() -> None:
    def rate(workers: Any) -> float | None:
        return Run(folder=Path(), header={"workers": workers}, measurements=()).copy_bytes_per_s

    assert rate({"a": {"copy_bytes_per_s": 2e12}, "b": {"copy_bytes_per_s": 3e12}, "c": {}}) == 3e12
    junk = ({"a": {"copy_bytes_per_s": None}}, {"a": {"copy_bytes_per_s": "fast"}}, {"a": 1}, [], None)
    assert [rate(workers) for workers in junk] == [None] * len(junk)


def test_a_row_is_shown_beside_its_floor() -> None:
    case = Case(batch=8, heads=16, seq_len=4096, dtype="bfloat16", device="cuda")
    time = Samples([0.2] * 30)
    row = Measurement(case=case, backend="x", form="y", status="ok", wall_ms=time, device_ms=time)
    rate = floor_bytes(case) / 0.1e-3  # a floor of .1 ms

    def shown(copy_bytes_per_s: float | None) -> str | None:
        table = all_rows([row], copy_bytes_per_s)
        titles = [column.title for column in table.columns]
        if "over the floor" not in titles:
            return None
        return table.rows[0][1][titles.index("over the floor")].text

    assert shown(rate) == "2.00×"
    assert shown(None) is None
    assert flat_row(row, rate)["floor_ms"] == pytest.approx(0.1)
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
