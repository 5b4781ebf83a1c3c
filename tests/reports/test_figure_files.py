"""`mtbench figures`: the files of each figure, and what a caption says. Few are drawn: it takes long."""

from __future__ import annotations

import csv
import io
import re

import pytest

from mtbench.errors import BadInput
from mtbench.results import Agreement, Run
from reports.captions import caption
from reports.drawing import draw
from reports.figure_files import figure_csv, write_figures
from reports.plan import plan_figures
from reports.sheets import REPORT, sheet
from reports.style import backend_looks, form_dashes

HOSTILE = '_$\\frac{1}$<script>alert("x")</script>\x00\u202e漢字&amp;'


def line(row, **changes):
    return [
        row(n / 100, seq_len=n, row={"peak_memory_bytes": n, "memory_method": "VmHWM", **changes})
        for n in (128, 256)
    ]


def figure_of(rows, quantity="latency"):
    (found,) = [f for f in plan_figures(rows) if f.quantity == quantity]
    return found


def paper(figure, *formats, columns=2):
    looks, dashes = backend_looks(r.backend for r in figure.rows), form_dashes(r.form for r in figure.rows)
    return draw(figure, looks, dashes, sheet("paper", columns), formats)


def test_each_figure_has_its_data_and_its_caption(make_run, row, tmp_path):
    folder = make_run(line(row))
    out = tmp_path / "new" / "figures"
    written = write_figures(folder, out, ["svg"])
    names = {f.name for f in plan_figures(line(row))}
    assert {path.name for path in out.iterdir()} == {path.name for path in written}
    assert {path.name for path in written} == {f"{n}.{end}" for n in names for end in ("svg", "csv", "txt")}
    assert not (folder / "figures-paper").exists()


def test_the_data_is_what_is_drawn(row):
    rows = line(row)
    lines = list(csv.DictReader(io.StringIO(figure_csv(figure_of(rows)))))
    assert [float(one["wall_ms_median"]) for one in lines] == [r.wall_ms.median for r in rows]
    assert [float(one["wall_ms_ci_high"]) for one in lines] == [r.wall_ms.interval[1] for r in rows]
    assert [one["seq_len"] for one in lines] == ["128", "256"]
    assert {one["wall_ms_samples_count"] for one in lines} == {"15"}
    memory = list(csv.DictReader(io.StringIO(figure_csv(figure_of(rows, "memory")))))
    assert [one["peak_memory_bytes"] for one in memory] == ["128", "256"]


def test_a_caption_says_all_that_the_numbers_depend_on(make_run, row):
    rows = line(row, cache="warm")
    text = caption(figure_of(rows), Run.load(make_run(rows)), sheet("paper"))
    for fact in (
        "Clock: wall clock, the host's clock around a call",
        "cache: warm",
        "n: 15 samples a point, in 1 launch.",
        "dtype: float32.",
        "Mode: forward, causal.",
        "Hardware: Some CPU @ 2.60GHz, 4 cores, 2 of them used, 16.0 GiB of memory, 2 CPU threads.",
        "mtbench 0.1.0, Python 3.11.7, torch 2.13.0, no triton, jax 0.8.1, no GPU driver.",
        "2026-11-24 03:04 UTC",
        "The areas are the intervals",
    ):
        assert fact in text
    assert "The bars are the intervals" in caption(figure_of(rows), Run.load(make_run(rows, "b")), REPORT)


def test_captions_of_a_gpu_and_of_what_is_no_time(make_run, row, on_gpu):
    agreement = {"o": Agreement(relative=1e-7, max_abs=1, tolerance=1e-5)}
    rows = [
        on_gpu(
            row(1.0, device="cuda", seq_len=n, row={"agreement": agreement, "compared": f"all {n} rows"}), 0.5
        )
        for n in (128, 256)
    ]
    environment = {"gpus": [{"name": "H100", "driver": "580.1"}], "packages": None, "cpu": 3}
    run = Run.load(make_run(rows, environment=environment, mtbench=None, command="x"))
    text = caption(figure_of(rows), run, sheet("paper"))
    assert "Clock: device clock, the union of the intervals in which the GPU worked" in text
    assert "Hardware: H100, an unnamed CPU." in text
    assert "mtbench of unknown version" in text
    assert "NVIDIA driver 580.1" in text
    text = caption(figure_of(rows, "agreement"), run, sheet("paper"))
    assert "Clock: none" in text
    assert "n: the worst of 1 launch a point, of all rows" in text


def test_paper_embeds_its_fonts_keeps_its_width_and_has_no_title(row):
    figure = figure_of(line(row))
    for columns, width in ((1, 3.3), (2, 7.0)):
        files = paper(figure, "pdf", "svg", columns=columns)
        pdf = files["pdf"]
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf
        assert b"/Subtype /Type3" not in pdf
        assert b"STIX" in pdf
        assert b"CreationDate" not in pdf
        (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ", pdf)
        assert float(box) == pytest.approx(72 * width)
        # Text drawn as paths stands beside them in a comment.
        assert f"<!-- {figure.unit} -->" in files["svg"].decode()
        assert f"<!-- {figure.title[:9]}" not in files["svg"].decode().replace(f"<!-- {figure.unit}", "")


def test_paper_is_repeatable_and_survives_hostile_names(make_run, row):
    rows = [row(n / 100, seq_len=n, backend=HOSTILE, form=f"{HOSTILE}%s") for n in (128, 999)]
    figure = figure_of(rows)
    files = paper(figure, "pdf", "svg", "png")
    assert files == paper(figure, "png", "svg", "pdf")
    assert list(files) == ["png", "svg", "pdf"]
    assert b"<script" not in files["svg"]
    text = caption(figure, Run.load(make_run(rows, command=["mtbench", HOSTILE])), sheet("paper"))
    assert "\x00" not in text
    assert "\u202e" not in text


def test_dots_and_lines_of_one_point_are_drawn(row):
    agreement = {"o": Agreement(relative=1e-4, max_abs=1, tolerance=1e-5)}
    (dots,) = plan_figures([row(1.0, status="wrong", row={"agreement": agreement})])
    assert dots.axis is None
    assert paper(dots, "png", columns=1)["png"]
    alone = figure_of([*line(row), row(1.0, backend="jax", seq_len=128)])
    assert paper(alone, "png")["png"]


BAD = {
    "--format pfd": {"formats": ["pfd"]},
    "--style papr": {"style": "papr"},
    "--columns 3": {"columns": 3},
}


@pytest.mark.parametrize("says", BAD)
def test_bad_words_name_the_value_and_the_way_out(make_run, row, says):
    with pytest.raises(BadInput, match=says) as error:
        write_figures(make_run(line(row)), **BAD[says])
    assert "\n" not in str(error.value)


def test_nothing_to_draw_and_nowhere_to_write(make_run, row, tmp_path):
    with pytest.raises(BadInput, match="nothing to draw"):
        write_figures(make_run([row(None, status="oom")]))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--out .*file cannot be written"):
        write_figures(make_run(line(row), "other"), tmp_path / "file")


def test_the_command(make_run, row, mtbench):
    folder = make_run(line(row))
    done = mtbench("figures", folder, "--format", "png")
    assert (done.returncode, done.stdout) == (0, f"figures: 3 in {folder}/figures-paper\n"), done.stderr
    for words, says in (("--format pfd", "did you mean 'pdf'?"), ("--columns x", "--columns")):
        done = mtbench("figures", folder, *words.split())
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr
