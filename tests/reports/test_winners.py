"""Who wins where, as a map."""

from __future__ import annotations

import csv
import io

from reports.drawing import draw
from reports.figure_files import figure_csv
from reports.plan import plan_figures
from reports.sheets import sheet
from reports.style import backend_looks, form_dashes
from reports.winners import MOST_LENGTHS, MOST_SHAPES, winner_maps


def maps(rows):
    return list(winner_maps(rows))


def svg(found, style="report", columns=2):
    looks, dashes = backend_looks(r.backend for r in found.rows), form_dashes(r.form for r in found.rows)
    return draw(found, looks, dashes, sheet(style, columns), ["svg"])["svg"].decode()


def test_a_cell_says_who_and_by_how_much(row):
    rows = [row(1.0, seq_len=n, width=0, form="sdpa") for n in (128, 256)]
    rows += [row(2.5, seq_len=n, width=0, backend="jax") for n in (128, 256)]
    (found,) = maps(rows)
    assert (found.lengths, len(found.shapes), [p.title for p in found.panels]) == ((128, 256), 1, ["softmax"])
    drawn = svg(found)
    for word in (">torch-eager<", ">sdpa<", ">2.50×<", ">128<", ">seq_len (tokens)<"):
        assert drawn.count(word) >= 1, word
    assert "softmax: torch-eager/sdpa in 2, at most 2.50× ahead" in found.alt


def test_all_attentions_together_come_first(row):
    times = {"softmax": 2.0, "linear": 1.0}
    rows = [row(ms, seq_len=n, attention=kind) for kind, ms in times.items() for n in (128, 256)]
    (found,) = maps(rows)
    assert [p.title for p in found.panels] == ["all attentions", "softmax", "linear"]
    assert {race.winner.attention for race in found.panels[0].cells[0]} == {"linear"}


def test_shapes_are_rows_and_what_has_no_time_is_a_dash(row):
    rows = [row(1.0, seq_len=n) for n in (128, 256)] + [row(1.0, seq_len=256, batch=4)]
    (found,) = maps(rows)
    timed = [[race is not None for race in line] for line in found.panels[0].cells]
    assert timed == [[True, True], [False, True]]
    assert ">–<" in svg(found)
    assert ">alone<" in svg(found)


def test_one_size_has_no_map(row):
    assert maps([row(1.0), row(2.0, backend="jax")]) == []
    assert maps([row(None, seq_len=n, status="oom") for n in (128, 256)]) == []


def test_a_map_a_context_and_clock(row, on_gpu):
    rows = [row(1.0, seq_len=n, mode=mode) for n in (128, 256) for mode in ("forward", "forward_backward")]
    rows += [on_gpu(row(1.0, seq_len=n, device="cuda"), 0.5) for n in (128, 256)]
    rows += [row(1.0, seq_len=128, device="cuda", backend="jax")]
    names = [f.name for f in plan_figures(rows) if f.quantity == "winners"]
    assert names == [
        "winners-cpu-float32-forward-causal",
        "winners-cpu-float32-forward_backward-causal",
        "winners-device-cuda-float32-forward-causal",
        "winners-wall-cuda-float32-forward-causal",
    ]


def test_an_unsure_lead_says_so(row):
    rows = [row(1.0, seq_len=n, width=0.5) for n in (128, 256)]
    rows += [row(1.01, seq_len=n, width=0.5, backend="jax") for n in (128, 256)]
    assert svg(maps(rows)[0]).count(" unsure<") == 2


def test_many_sizes_are_thinned_and_counted(row):
    lengths = range(64, 64 * 31, 64)
    rows = [row(1.0, seq_len=n, batch=b) for n in lengths for b in range(1, 21)]
    (found,) = maps(rows)
    assert (len(found.lengths), len(found.shapes)) == (MOST_LENGTHS, MOST_SHAPES)
    assert (found.lengths[0], found.lengths[-1]) == (64, 64 * 30)
    assert "18 of 30 lengths and 4 of 20 shapes" in found.caption


def test_what_is_thinned_away_leaves_no_empty_panel(row):
    lengths = range(64, 64 * 31, 64)
    shown = maps([row(1.0, seq_len=n) for n in lengths])[0].lengths
    hidden = next(n for n in lengths if n not in shown)
    rows = [row(1.0, seq_len=n) for n in lengths] + [row(1.0, seq_len=hidden, attention="momentum")]
    (found,) = maps(rows)
    assert [panel.title for panel in found.panels] == ["all attentions", "softmax"]
    assert svg(found)


def test_one_length_and_several_shapes(row):
    (found,) = maps([row(1.0, batch=b, attention=a) for b in (1, 4) for a in ("softmax", "linear")])
    assert (found.lengths, len(found.shapes)) == ((256,), 2)
    assert svg(found).count(">softmax<") >= 1


def test_its_data(row):
    rows = [row(1.0, seq_len=n, width=0) for n in (128, 256)]
    rows += [row(4.0, seq_len=128, width=0, backend="jax")]
    lines = list(csv.DictReader(io.StringIO(figure_csv(maps(rows)[0]))))
    assert [(one["backend"], one["next_backend"], one["ratio_to_next"], one["sure"]) for one in lines] == [
        ("torch-eager", "jax", "4.0", "true"),
        ("torch-eager", "", "", "true"),
    ]
    assert {one["wall_ms_median"] for one in lines} == {"1.0"}


def test_hostile_and_long_names_are_text(row):
    name = '<script>"&$x_1$' + "n" * 90
    rows = [row(1.0, seq_len=n, backend=name, form=name) for n in (128, 256)]
    for style, columns in (("report", 2), ("paper", 1), ("paper", 2)):
        drawn = svg(maps(rows)[0], style, columns)
        assert "<script" not in drawn
