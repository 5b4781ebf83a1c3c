"""Which figures a run gives; few are drawn, because drawing takes long."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from mtbench.measure.memory import SAMPLED, VMHWM
from mtbench.measure.statistics import Samples
from mtbench.registry import BUILTIN_BACKENDS, load_backend
from mtbench.results import Agreement
from mtbench.spec import ATTENTIONS
from reports.drawing import draw
from reports.figures import GOOD_TO
from reports.plan import plan_figures
from reports.style import backend_looks, form_dashes, variant_looks
from reports.svg import inline_svg


def swept(rows):
    """The figures of one value; `test_winners.py` and `test_scatter.py` have the others."""
    return [f for f in plan_figures(rows) if f.quantity in ("latency", "memory", "agreement")]


def drawn(figure):
    looks, dashes = backend_looks(r.backend for r in figure.rows), form_dashes(r.form for r in figure.rows)
    files = draw(figure, looks, dashes)
    return files["svg"].decode(), files["png"]


def test_the_sweeps_of_a_realistic_run(sweep):
    figures = swept(list(sweep(lengths=(128, 512))))
    forward = [f for f in figures if f.context.mode == "forward"]
    assert [(f.quantity, f.axis) for f in forward] == [
        ("latency", "seq_len"),
        ("memory", "seq_len"),
        ("agreement", "seq_len"),
        ("latency", "batch"),
        ("memory", "batch"),
        ("latency", "head_dim"),
        ("memory", "head_dim"),
    ]
    assert len({f.name for f in figures}) == len(figures) == 14
    assert all(panel.series for f in figures for panel in f.panels)
    assert all([p.title for p in f.panels] == ["softmax", "linear", "momentum"] for f in figures)
    batch = forward[3]
    assert {p.x for p in batch.points} == {1, 2, 4}
    assert "heads 8, head_dim 64, seq_len 512" in batch.title
    assert "batch 1" not in batch.title


def test_a_full_product_has_a_figure_for_each_batch_and_head_dim(row):
    sizes = [(n, b, d) for n in (128, 256) for b in (1, 2) for d in (32, 64)]
    figures = swept([row(1.0, seq_len=n, batch=b, head_dim=d) for n, b, d in sizes])
    assert [(f.quantity, f.axis) for f in figures] == [("latency", "seq_len")] * 4


def test_one_size_has_a_dot_for_each_row(row):
    (figure,) = swept([row(1.0), row(2.0, backend="jax")])
    assert figure.axis is None
    assert figure.title.endswith("batch 1, heads 8, head_dim 64, seq_len 256")


def test_one_length_left_of_a_sweep_is_drawn_as_dots(row):
    (figure,) = swept([row(1.0), row(None, seq_len=512, status="oom")])
    assert figure.axis is None


def test_every_ranked_row_is_in_a_latency_figure(sweep):
    rows = list(sweep(lengths=(128, 512)))
    points = [p for f in swept(rows) if f.quantity == "latency" for p in f.points]
    assert {p.y for p in points} == {row.wall_ms.median for row in rows if row.ranked}


def test_wrong_rows_are_in_the_agreement_figure_alone(row):
    off = {"agreement": {"o": Agreement(relative=0.5, max_abs=1, tolerance=1e-5)}, "peak_memory_bytes": 2**20}
    figures = swept([row(1.0, status="wrong", seq_len=n, row=off) for n in (128, 256)])
    assert [f.quantity for f in figures] == ["agreement"]
    assert all(p.wrong for p in figures[0].points)


def test_what_a_log_axis_cannot_show_is_counted(row):
    rows = [row(1.0, seq_len=n, row={"peak_memory_bytes": n - 128}) for n in (128, 256, 512)]
    (memory,) = [f for f in swept(rows) if f.quantity == "memory"]
    assert len(memory.points) == 2
    assert "Not drawn: 1 row whose value is zero" in memory.caption


@pytest.mark.parametrize(("method", "said"), [(VMHWM, True), (SAMPLED, False)])
def test_a_memory_figure_says_what_linux_counters_are_good_to(row, method, said):
    rows = [row(1.0, seq_len=n, row={"peak_memory_bytes": n, "memory_method": method}) for n in (64, 128)]
    (memory,) = (f for f in swept(rows) if f.quantity == "memory")
    assert (GOOD_TO in memory.caption) == said


def test_a_gpu_has_a_figure_a_clock(row):
    with_device = {"device_ms": Samples([0.5] * 9)}
    rows = [row(1.0, device="cuda", seq_len=n, row=with_device) for n in (128, 256)]
    assert [f.unit for f in swept(rows)] == ["Latency, device clock (ms)"]
    rows += [row(1.0, device="cuda", backend="jax", seq_len=n) for n in (128, 256)]
    figures = swept(rows)
    assert [f.unit for f in figures] == ["Latency, device clock (ms)", "Latency, wall clock (ms)"]
    assert len({f.name for f in figures}) == 2


def test_names_of_files_are_safe_and_differ(row):
    rows = [row(1.0, backend="../../x", batch=2, lengths=lengths) for lengths in ((9, 9), (8, 9), None)]
    names = [f.name for f in swept(rows)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)


def test_drawing_is_repeatable_and_survives_hostile_names(row):
    name = '_$\\frac{1}$<script>alert("x")</script>\x00\u202e漢字&amp;'
    agreement = {"o": Agreement(relative=1e-7, max_abs=1, tolerance=1e-5)}
    rows = [
        row(n / 100, seq_len=n, backend=name, form=f"{name}%s", row={"agreement": agreement})
        for n in (128, 999)
    ]
    for figure in plan_figures(rows):
        (svg, png), again = drawn(figure), drawn(figure)
        assert (svg, png) == again
        assert png.startswith(b"\x89PNG")
        assert "<script" not in svg
        assert "dc:date" not in svg
        ET.fromstring(svg)


def test_inline_svgs_do_not_share_ids_and_name_themselves(row):
    (figure,) = swept([row(n / 100, seq_len=n) for n in (128, 256)])
    svg, _ = drawn(figure)
    one, two = (inline_svg(svg, prefix=p, title='A "title" <b>') for p in ("f1", "f2"))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, found in zip((one, two), ids, strict=True):
        references = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
        assert references <= found
        assert "http" not in text
        root = ET.fromstring(text)
        assert root.get("role") == "img"
        assert root[0].text == 'A "title" <b>'
        assert "width" not in root.attrib


def test_one_size_and_narrow_ranges_are_drawn(row):
    dots = [
        row(
            1.0, row={"agreement": {"o": Agreement(relative=1e-4, max_abs=1, tolerance=1e-5)}}, status="wrong"
        )
    ]
    narrow = [row(1.0, seq_len=n, width=1e-9) for n in (128, 131072)]
    for rows in (dots, narrow):
        for figure in swept(rows):
            assert drawn(figure)[1]


@pytest.mark.parametrize("count", [1, 7, 30])
def test_looks_differ(count):
    looks = backend_looks([f"b{i}" for i in range(count)])
    assert len(set(looks.values())) == len(looks) == count


def test_a_colour_whose_owner_is_not_there_is_taken_before_another_s():
    looks = variant_looks(["softmax", "linear", "momentum", "linear-bare", "momentum-bare"])
    assert len({look.color for look in looks.values()}) == len(looks)


def test_each_form_of_the_built_in_backends_has_a_line_of_its_own():
    backends = map(load_backend, BUILTIN_BACKENDS)
    forms = {form for backend in backends for kind in ATTENTIONS for form in backend.forms(kind)}
    dashes = form_dashes(forms)
    assert len({dashes[form] for form in forms}) == len(forms)


def test_each_backend_keeps_its_colour_in_the_png(row):
    names = ("triton", "jax", "fla", "jax-pallas", "sdpa")
    same = {"jax-pallas": 0, "triton": 0, "sdpa": 0, "jax": 2, "fla": 3}  # lines under others, too
    rows = [
        row(n * 2 ** same[name] / 1000, seq_len=n, attention=kind, backend=name, form="fused")
        for name in names
        for n in (1024, 4096)
        for kind in ATTENTIONS
    ]
    figure = next(f for f in plan_figures(rows) if f.quantity == "latency")
    pixels = np.asarray(Image.open(io.BytesIO(drawn(figure)[1])).convert("RGB")).astype(int)
    looks = backend_looks(names)
    for name in names:
        wanted = [int(looks[name].color[at : at + 2], 16) for at in (1, 3, 5)]
        assert np.abs(pixels - wanted).max(axis=2).min() <= 2, name
