"""What the page's scripts are given: the explorer's columns, the rows' details, the work of a case."""

from __future__ import annotations

import json

import pytest

from mtbench.floor import Ceilings
from mtbench.results import Agreement, Run
from reports.details import SAMPLES, row_details
from reports.embed import as_json
from reports.explorer import explorer_data
from reports.figures import error_point, latency_point
from reports.style import backend_looks
from reports.table import in_order


def data(rows):
    ceilings = {"cuda": Ceilings(copy_bytes_per_s=3e12, matmul_flop_per_s={"float32": 5e13})}
    return explorer_data(rows, backend_looks(r.backend for r in rows), {"": ceilings})


def test_every_point_of_the_figures_is_there(sweep):
    rows = in_order(list(sweep(device="cuda")))
    found = data(rows)
    for name, point in {**{c: latency_point(c) for c in ("wall", "device")}, "error": error_point}.items():
        expected = [0 if (p := point(row)) is None else p.y for row in rows]
        shown = [0 if p is None else p[0] for p in found["points"][name]]
        assert shown == pytest.approx(expected, rel=1e-4)
    assert found["wrong"] == [at for at, row in enumerate(rows) if row.status == "wrong"]
    for dim in found["dims"].values():
        assert len(dim["rows"]) == len(rows)
    lengths = found["dims"]["seq_len"]
    assert [lengths["values"][at] for at in lengths["rows"]] == [row.case.seq_len for row in rows]
    json.loads(as_json(found))


def test_what_no_axis_can_show_is_left_out(row):
    rows = [
        row(1.0, status="wrong", row={"agreement": {"o": Agreement(relative=v, max_abs=1, tolerance=1e-5)}})
        for v in (float("inf"), float("nan"), 0.0, 0.5)
    ]
    assert data(rows)["points"]["error"] == [None, None, None, [0.5]]


def test_sizes_that_follow_another_are_named_where_they_do_not(row):
    spec = {"causal": False}
    rows = [row(1.0), row(1.0, kv_len=512, spec=spec), row(1.0, value_dim=32, spec=spec)]
    others = data(rows)["dims"]["other sizes"]
    assert others["values"] == ["as usual", "kv_len 512", "value_dim 32"]


def test_details_are_shared_and_samples_sorted(make_run, row):
    rows = [row(1.0, seq_len=n, row={"config": {"block": 64}}) for n in (128, 256)]
    run = Run.load(make_run(rows, workers={"torch-eager": {"torch": "2"}}))
    found = row_details(run, list(run))
    titles = [[found["blocks"][at][0] for at in one] for one in found["rows"]]
    assert titles == [["Row", "What the kernel chose", "Worker torch-eager"]] * 2
    assert found["rows"][0][1:] == found["rows"][1][1:]
    (launch,) = found["samples"]["wall"][0]["launches"]
    assert launch == sorted(launch)
    assert found["samples"]["wall"][0]["taken"] == len(launch) == 15
    assert found["samples"]["device"] == [None, None]


def test_many_samples_are_thinned_and_keep_their_ends(make_run, row, monkeypatch):
    monkeypatch.setattr("reports.details.SAMPLES", 100)
    run = Run.load(make_run([row(1.0, n=1000)]))
    (found,) = row_details(run, list(run))["samples"]["wall"]
    (launch,) = found["launches"]
    values = run.measurements[0].wall_ms.values
    assert len(launch) == 100
    assert found["taken"] == 1000
    assert (launch[0], launch[-1]) == (
        pytest.approx(min(values), rel=1e-3),
        pytest.approx(max(values), rel=1e-3),
    )
    assert SAMPLES > 100


def test_json_ends_no_element(row):
    text = as_json({"</script>": "<!-- & \u2028 \ud800"})
    assert not set("<>&\u2028") & set(text)
    assert text.isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(float("nan"))
