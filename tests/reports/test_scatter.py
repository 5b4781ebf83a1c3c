"""Speed against error, the roofline, and a row's share of it."""

from __future__ import annotations

import csv
import io

import pytest

from mtbench.floor import Ceilings, floor_bytes
from mtbench.results import Agreement, Run
from mtbench.spec import Case
from mtbench.work import intensity, operations
from reports.captions import caption
from reports.drawing import draw
from reports.exports import flat_row
from reports.figure_files import figure_csv
from reports.page import write_report
from reports.plan import plan_figures
from reports.roofline import least_ms, missing_ceilings, roofline_share
from reports.sheets import sheet
from reports.style import backend_looks, form_dashes
from reports.table import all_rows

CPU = {"cpu": Ceilings(copy_bytes_per_s=5e10, matmul_flop_per_s={"float32": 2e11})}
ERROR = {"agreement": {"o": Agreement(relative=1e-7, max_abs=1, tolerance=1e-5)}}


def figure_of(rows, quantity, ceilings=CPU):
    (found,) = [f for f in plan_figures(rows, {"": ceilings}) if f.quantity == quantity]
    return found


def svg(found, style="report", columns=2):
    looks, dashes = backend_looks(r.backend for r in found.rows), form_dashes(r.form for r in found.rows)
    return draw(found, looks, dashes, sheet(style, columns), ["svg"])["svg"].decode()


def test_the_least_time_is_the_longer_of_two():
    case = Case(seq_len=256)
    copy, product = floor_bytes(case) / 5e10 * 1e3, operations(case) / 2e11 * 1e3
    assert product > copy
    assert least_ms(case, CPU) == (pytest.approx(product), "product")
    slow = {"cpu": Ceilings(copy_bytes_per_s=1e9, matmul_flop_per_s={"float32": 2e11})}
    assert least_ms(case, slow) == (pytest.approx(copy * 50), "copy")


@pytest.mark.parametrize(
    "ceilings",
    [
        {},
        {"cpu": Ceilings()},
        {"cpu": Ceilings(copy_bytes_per_s=5e10)},
        {"cpu": Ceilings(matmul_flop_per_s={"float32": 2e11})},
        {"cpu": Ceilings(copy_bytes_per_s=5e10, matmul_flop_per_s={"bfloat16": 2e11})},
        {"cuda": CPU["cpu"]},
    ],
)
def test_no_share_without_both_ceilings(row, ceilings):
    one = row(1.0)
    assert roofline_share(one, ceilings) is None
    assert flat_row(one, ceilings)["roofline_share"] is None
    titles = [column.title for column in all_rows([one], {"": ceilings}).columns]
    assert "of the roofline" not in titles
    assert not [f for f in plan_figures([one], {"": ceilings}) if f.quantity == "roofline"]
    if "cpu" not in ceilings or not ceilings["cpu"].copy_bytes_per_s:
        assert missing_ceilings([one], {"": ceilings})[0].startswith("a copy")


def test_a_share_of_the_roofline(row):
    least, bound = least_ms(Case(seq_len=256), CPU)
    one = row(4 * least, width=0.01, attention="momentum")
    share = roofline_share(one, CPU)
    assert share.value == pytest.approx(0.25, rel=0.02)
    assert share.low < share.value < share.high
    assert share.bound == bound
    flat = flat_row(one, CPU)
    assert flat["roofline_ms"] == pytest.approx(least)
    assert flat["roofline_share"] == share.value
    assert flat["operations_count"] == operations(one.case)
    table = all_rows([one], {"": CPU})
    at = [column.title for column in table.columns].index("of the roofline")
    assert table.rows[0][1][at].text == "25%"
    assert missing_ceilings([one], {"": CPU}) == []


def test_a_gpu_is_judged_by_the_device_clock_alone(row, on_gpu):
    ceilings = {"cuda": Ceilings(copy_bytes_per_s=2e12, matmul_flop_per_s={"float32": 5e13})}
    walled = row(1.0, device="cuda")
    assert roofline_share(walled, ceilings) is None
    least, _ = least_ms(walled.case, ceilings)
    assert roofline_share(on_gpu(walled, 2 * least), ceilings).value == pytest.approx(0.5, rel=0.03)


def test_what_is_not_ranked_has_no_share(row):
    assert roofline_share(row(1.0, status="wrong"), CPU) is None
    assert roofline_share(row(1.0, row={"flags": ("does less",)}), CPU) is None


def test_the_roofline_has_all_sizes_of_a_context(row):
    rows = [row(n / 100, seq_len=n, batch=b) for n in (128, 256) for b in (1, 4)]
    found = figure_of(rows, "roofline")
    assert len(found.points) == 4
    assert len(found.panels[0].series) == 2  # a line a shape
    for point in found.points:
        assert point.x == intensity(point.row.case)
        assert point.y == pytest.approx(operations(point.row.case) / point.row.wall_ms.median / 1e6)
    assert (found.unit, found.x_unit) == ("Rate (GFLOP/s)", "Arithmetic intensity (FLOP/byte)")
    assert (found.roof.copy, found.roof.product) == (50, 200)
    assert "a copy of 50 GB/s, and a product of two matrices in float32 of 200 GFLOP/s" in found.caption
    for words in (">copy<", ">product<", ">Rate (GFLOP/s)<"):
        assert words in svg(found)
    lines = list(csv.DictReader(io.StringIO(figure_csv(found, {"": CPU}))))
    assert [float(one["roofline_share"]) for one in lines] == pytest.approx(
        [roofline_share(p.row, CPU).value for s in found.panels[0].series for p in s.points]
    )


def test_speed_against_error(make_run, row):
    rows = [row(n / 100, seq_len=n, row=ERROR) for n in (128, 256)]
    rows.append(row(0.1, seq_len=256, status="wrong", backend="jax", row=ERROR))
    found = figure_of(rows, "speed")
    assert [(p.x, p.y) for p in found.points] == [(r.wall_ms.median, 1e-7) for r in rows[:2]]
    assert (found.x_unit, found.unit) == ("Latency, wall clock (ms)", "Relative error (ratio)")
    drawn = svg(found)
    assert ">tolerance<" in drawn
    lines = list(csv.DictReader(io.StringIO(figure_csv(found))))
    assert [one["relative_error"] for one in lines] == ["1e-07", "1e-07"]
    assert [float(one["wall_ms_median"]) for one in lines] == [p.x for p in found.points]
    text = caption(found, Run.load(make_run(rows)), sheet("paper"))
    assert "n: 15 samples a point, in 1 launch." in text
    assert "Clock: wall clock" in text


def test_a_line_goes_from_length_to_length(row):
    """Where a longer sequence takes less time, too."""
    times = {128: 3.0, 256: 1.0, 512: 2.0}
    rows = [row(ms, seq_len=n, row=ERROR) for n, ms in times.items()]
    for quantity in ("speed", "roofline"):
        (series,) = figure_of(rows, quantity).panels[0].series
        assert [p.row.case.seq_len for p in series.points] == [128, 256, 512]


def test_clocks_with_different_lengths_are_drawn_apart(row, on_gpu):
    rows = [row(1.0, seq_len=n, device="cuda", row=ERROR) for n in (128, 256)]
    rows[0] = on_gpu(rows[0], 0.5)
    names = [f.name for f in plan_figures(rows) if f.quantity == "speed"]
    assert names == [
        "speed-device-one-size-cuda-float32-forward-causal-b1-h8-d64-n128",
        "speed-wall-seq_len-cuda-float32-forward-causal-b1-h8-d64",
    ]


def test_both_are_drawn_of_one_row_and_on_every_sheet(row):
    rows = [row(1.0, row=ERROR)]
    for quantity in ("speed", "roofline"):
        found = figure_of(rows, quantity)
        for style, columns in (("report", 2), ("paper", 1), ("paper", 2)):
            assert svg(found, style, columns).startswith("<?xml")


def test_the_page_has_the_roofline_where_its_ceilings_were_measured(make_run, row):
    rates = {"copy_bytes_per_s": 5e10, "matmul_flop_per_s": {"float32": 2e11}}
    rows = [row(n / 100, seq_len=n, row=ERROR) for n in (128, 256)]
    text = write_report(make_run(rows, workers={"torch-eager on cpu": rates})).read_text()
    assert "figures/roofline-cpu-float32-forward-causal.svg" in text
    assert "were not measured in this run" not in text
    assert ">of the roofline</th>" in text
    old = write_report(make_run(rows, "old")).read_text()
    assert "roofline-cpu" not in old
    assert "were not measured in this run: a copy and a product in float32 on cpu." in old
