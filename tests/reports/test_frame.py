"""`mtbench.load`: a run as a DataFrame."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import mtbench
from mtbench.errors import BadInput
from mtbench.results import Agreement

pd = pytest.importorskip("pandas")


@pytest.fixture
def rows(row, on_gpu):
    bad = {"o": Agreement(relative=float("nan"), max_abs=float("inf"), tolerance=1e-5)}
    return [
        row(1.25, row={"flags": ("noisy", "slow"), "peak_memory_bytes": 1024, "compiled": {"anew": 2}}),
        dataclasses.replace(on_gpu(row(2.0, seq_len=512, device="cuda"), 0.5), status="ok"),
        row(0.1, backend="jax", status="wrong", row={"agreement": bad}),
        row(None, form="sdpa", status="oom", row={"reason": "needs 9 GiB"}, lengths=(17,)),
    ]


def test_a_row_a_measurement_with_units_in_the_names(make_run, rows):
    frame = mtbench.load(make_run(rows))
    assert frame["id"].tolist() == [row.id for row in rows]
    first = frame.iloc[0]
    assert first["wall_ms_median"] == rows[0].wall_ms.median
    assert (first["wall_ms_ci_low"], first["wall_ms_ci_high"]) == rows[0].wall_ms.interval
    assert first["peak_memory_bytes"] == 1024
    assert first["compiled"] == '{"anew": 2}'
    assert frame["ranked"].tolist() == [True, True, False, False]
    for axis in ("attention", "device", "dtype", "mode", "causal", "batch", "heads", "kv_heads", "seq_len"):
        assert axis in frame
    for axis in ("kv_len", "lengths", "head_dim", "value_dim", "beta", "gamma", "eps", "scale", "seed"):
        assert axis in frame


def test_what_is_missing_is_na_and_what_is_not_finite_is_not_missing(make_run, rows):
    frame = mtbench.load(make_run(rows))
    assert frame["wall_ms_median"].isna().tolist() == [False, False, False, True]
    assert frame["device_ms_median"].isna().tolist() == [True, False, True, True]
    assert frame["peak_memory_bytes"].isna().tolist() == [False, True, True, True]
    assert frame["relative_error"].tolist()[2] == float("inf")
    assert frame["reason"].isna().tolist() == [True, True, True, False]
    assert frame["flags"].tolist() == ["noisy slow", "", "", ""]
    assert frame["lengths"].tolist()[3] == "17"


def test_the_dtypes_do_not_depend_on_the_run(make_run, rows):
    full, empty = mtbench.load(make_run(rows)), mtbench.load(make_run(folder="empty"))
    assert len(empty) == 0
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    types = {name: str(full[name].dtype) for name in full}
    assert types["seq_len"] == types["peak_memory_bytes"] == types["wall_ms_samples_count"] == "Int64"
    assert types["wall_ms_median"] == types["floor_ms"] == types["tolerance_dq"] == "Float64"
    assert types["ranked"] == "boolean"
    numbers = {"Int64", "Float64", "boolean"}
    texts = [name for name, kind in types.items() if kind not in numbers]
    assert not [name for name in texts if "_ms" in name and not name.endswith("_reason")]


def test_no_run_and_no_pandas_are_one_line(make_run, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="holds no run"):
        mtbench.load(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadInput, match=r"needs pandas.*pip install") as error:
        mtbench.load(make_run())
    assert "\n" not in str(error.value)


def test_importing_mtbench_loads_no_pandas():
    code = (
        "import sys, mtbench; heavy = {'pandas', 'matplotlib', 'scipy'} & set(sys.modules); assert not heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
