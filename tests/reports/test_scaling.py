"""Strong and weak scaling: which figures, and what they and the table say."""

from __future__ import annotations

import csv
import io

import pytest

from mtbench.floor import Ceilings
from mtbench.results import Run
from reports.explorer import explorer_data
from reports.figure_files import figure_csv
from reports.page import write_report
from reports.plan import plan_figures
from reports.scaling import scaled
from reports.style import backend_looks
from reports.table import all_rows


@pytest.fixture
def spread(row):
    """Linear attention halves with every doubling; softmax stays as slow."""

    def of(kind, n, devices, ms):
        exchange = {"sent_bytes": 2048, "exposed_ms": 0.5, "peak_memory_bytes": [1 << 20] * devices}
        more = {"exchange": exchange, "peak_memory_bytes": 1 << 20} if devices > 1 else {}
        return row(ms, attention=kind, seq_len=n, world_size=devices, width=0, row=more)

    rows = [of("linear", n, w, n / 100 / w) for n in (256, 512, 1024) for w in (1, 2, 4)]
    return [*rows, *(of("softmax", 512, w, 8.0) for w in (1, 2)), row(3.0, attention="momentum", seq_len=512)]


def test_every_row_stands_against_one_device(spread):
    found = {(s.row.case.spec.kind, s.row.case.seq_len, s.devices): s for s in scaled(spread)}
    assert len(found) == 11  # momentum has one device alone
    assert found["linear", 512, 1].speed_up == 1
    assert found["linear", 512, 4].speed_up == pytest.approx(4)
    assert found["linear", 512, 4].efficiency == pytest.approx(1)
    assert found["linear", 512, 4].weak_efficiency is None  # 128 positions were not measured
    assert found["linear", 1024, 4].weak_efficiency == pytest.approx(1)
    assert found["softmax", 512, 2].efficiency == pytest.approx(0.5)
    cells = found["softmax", 512, 2].cells
    assert cells[1:] == ("64,000", "1.00", "50%", "–", "2.0 KiB", "500 µs", "1.0 MiB")
    assert scaled([spread[0], spread[-1]]) == []


def test_strong_and_weak_scaling_are_drawn(spread):
    figures = [f for f in plan_figures(spread) if f.quantity == "scaling"]
    names = [f.name.split("-")[1] + f.name[f.name.rindex("-") :] for f in figures]
    assert sorted(names) == ["strong-n1024", "strong-n256", "strong-n512", "weak-n256", "weak-n512"]
    strong = next(f for f in figures if f.name.endswith("n512") and "strong" in f.name)
    assert strong.ideal == 1
    assert [(panel.title, len(panel.series[0].points)) for panel in strong.panels] == [
        ("softmax", 2),
        ("linear", 3),
    ]
    assert [p.y for p in strong.panels[1].series[0].points] == pytest.approx([1, 2, 4])
    weak = next(f for f in figures if f.name.endswith("n256") and "weak" in f.name)
    assert weak.ideal == 0
    assert [p.y for p in weak.points] == pytest.approx([1, 1, 1])


def test_a_figures_data_has_what_is_drawn(spread):
    told = {}
    for figure in plan_figures(spread):
        if figure.quantity == "scaling":
            lines = list(csv.DictReader(io.StringIO(figure_csv(figure))))
            (name,) = {"speed_up_ratio", "weak_efficiency_ratio"} & set(lines[0])
            drawn = [float(line[name]) for line in lines]
            assert drawn == pytest.approx([point.y for point in figure.points])
            told[name] = max(drawn)
    assert told == pytest.approx({"speed_up_ratio": 4, "weak_efficiency_ratio": 1})


def test_rows_over_devices_are_ranked_by_themselves(spread):
    for figure in plan_figures(spread):
        if figure.quantity in ("winners", "latency", "memory"):
            assert len({row.case.world_size for row in figure.rows}) == 1


def test_the_page_has_the_table(make_run, spread):
    folder = make_run(spread[:6])
    text = write_report(folder).read_text()
    assert '<section id="scaling">' in text
    assert Run.load(folder).measurements[1].case.world_size == 2


def test_two_betas_have_two_names_in_the_table(make_run, row):
    rows = [
        row(1.0, attention="momentum", spec={"beta": beta}, world_size=devices)
        for beta in (0.5, 0.9)
        for devices in (1, 2)
    ]
    table = write_report(make_run(rows)).read_text().partition('<section id="scaling">')[2]
    assert table.count('<th scope="row">momentum (beta 0.5)</th>') == 2


def test_a_run_on_one_device_has_none(make_run, spread):
    assert '<section id="scaling">' not in write_report(make_run(spread[:1])).read_text()


def test_the_table_and_the_explorer_tell_rows_on_one_device_from_those_on_several(spread, row):
    table = all_rows(spread)
    cells = [tuple(cell.text for cell in cells) for _, cells in table.rows]
    assert table.choices("world_size") == ["1", "2", "4"]
    assert len({line[: [c.title for c in table.columns].index("wall")] for line in cells}) == len(spread)
    assert not all_rows([row(1.0)]).has("world_size")
    assert "world_size" not in dict(all_rows([row(1.0)]).constant)
    found = explorer_data(spread, backend_looks(one.backend for one in spread), {})["dims"]["world_size"]
    assert found["values"] == [1, 2, 4]


def test_the_roof_is_that_of_all_devices_of_a_context(spread):
    ceilings = {"": {"cpu": Ceilings(copy_bytes_per_s=5e10, matmul_flop_per_s={"float32": 2e11})}}
    roofs = {
        f.context.world_size: (
            f.roof.copy,
            f.roof.product,
            "of 4 devices together: a copy of 200" in f.caption,
        )
        for f in plan_figures(spread, ceilings)
        if f.quantity == "roofline"
    }
    assert roofs == {1: (50, 200, False), 2: (100, 400, False), 4: (200, 800, True)}
