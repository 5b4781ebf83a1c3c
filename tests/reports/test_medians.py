"""`mtbench table`: medians with the digits that they have, in Markdown and LaTeX, whatever a run says."""

from __future__ import annotations

import dataclasses
import doctest
import re

import pytest

import reports.digits
import reports.escapes
from mtbench.errors import BadInput
from mtbench.measure.statistics import Samples
from mtbench.results import Agreement
from reports.digits import decimals, fixed, with_interval
from reports.escapes import latex, markdown
from reports.medians import median_tables
from reports.table_text import table_texts

HOSTILE = (
    "a|b\n\n# h <script>alert(1)</script> [x](http://y) `c` **d** \\input{/etc/passwd} \\\\ $x^2$ %e &f ~g "
    "\x00\u202e 漢 ``q'' {h} --i [9pt] _j_ @k www.l.org &lt;"
)


@pytest.fixture
def rows(row):
    error = {"o": Agreement(relative=0.3, max_abs=1, tolerance=1e-5)}
    return [
        row(2.0, seq_len=256, row={"peak_memory_bytes": 2**20}),
        row(1.0, seq_len=256, backend="jax", row={"peak_memory_bytes": 2**21}),
        row(0.1, seq_len=256, backend="b-less", row={"flags": ("does less",)}),
        row(0.1, seq_len=256, backend="b-bad", status="wrong", row={"agreement": error}),
        row(4.0, seq_len=512),
        row(None, seq_len=512, backend="jax", status="oom"),
        row(None, seq_len=512, backend="b-less", status="unsupported"),
        row(None, seq_len=512, backend="b-bad", row={"flags": ("interpreted",)}),
        row(3.0, seq_len=256, attention="linear"),
    ]


@pytest.mark.parametrize("module", [reports.digits, reports.escapes])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (2.5124, 2.5032, 2.5184, ("2.512", "2.503, 2.518")),
        (1234.0, 1200.0, 1270.0, ("1,230", "1,200, 1,270")),
        (12.04, 11.24, 13.73, ("12.0", "11.2, 13.7")),
        (5.0, 1.0, 9.0, ("5", "1, 9")),
        (1.23456789, 1.23456788, 1.2345679, ("1.2346", "1.2346, 1.2346")),
        (0.00071, 0.00069, 0.00074, ("0.00071", "0.00069, 0.00074")),
        (0.478, 0.046, 4.926, ("0.5", "0.05, 4.9")),  # no end of a ratio or a time is 0
        (0.547, 0.026, 11.67, ("0.5", "0.03, 11.7")),
        (778.0, 40.0, 4000.0, ("800", "40, 4,000")),
        (7.0, 7.0, 7.0, ("7.00", "")),
        (0.0, 0.0, 0.0, ("0.00", "")),
        (0.4, 0.4, 25.1, ("0.4", "0.4, 25.1")),
        (0.003, 0.0, 0.31, ("0.003", "0.000, 0.310")),
    ],
)
def test_digits(value, low, high, shown):
    assert with_interval(value, low, high) == shown
    assert abs(float(fixed(value, decimals(value, low, high))) - value) <= max(high - low, abs(value) * 5e-3)


def test_a_row_a_case_and_a_column_a_form(rows):
    softmax, linear = median_tables(rows)
    assert softmax.title == (
        "Latency by the wall clock: softmax; cpu, float32, forward, causal; batch 1, heads 8, head_dim 64"
    )
    assert softmax.sizes == ("seq_len",)
    columns = [backend for backend, _ in softmax.columns]
    assert columns == ["b-bad", "b-less", "jax", "torch-eager"]
    told = {sizes: dict(zip(columns, cells, strict=True)) for sizes, cells in softmax.rows}
    first, second = told[("256",)], told[("512",)]
    assert [first[name].best for name in columns] == [False, False, True, False]
    assert (first["b-bad"].text, first["b-bad"].status) == ("wrong", True)
    assert first["b-less"].less
    assert first["b-less"].interval
    assert [second[name].text for name in columns[:3]] == ["interpreted", "unsupported", "oom"]
    assert second["torch-eager"].best
    assert linear.rows[0][0] == ("256",)


def test_other_metrics(rows):
    (memory,) = median_tables(rows, ["memory"])
    texts = {c[0]: e.text for c, e in zip(memory.columns, memory.rows[0][1], strict=True) if e}
    assert (memory.unit, texts["torch-eager"], texts["jax"]) == ("MiB", "1.00", "2.00")
    (errors,) = median_tables(rows, ["error"])
    wrong = errors.rows[0][1][0]
    assert (wrong.text, wrong.best) == ("0.30 (wrong)", False)
    assert median_tables(rows, ["device"]) == []


def test_what_is_equal_to_the_digits_shown_is_all_bold(row):
    rows = [row(1.0), row(1.0, backend="jax")]
    (table,) = median_tables(rows)
    assert [cell.best for cell in table.rows[0][1]] == [True, True]


def test_a_gpu_has_its_device_clock(row, on_gpu):
    (table,) = median_tables([on_gpu(row(2.0, device="cuda"), 1.0)])
    assert "device clock" in table.title


def test_what_is_no_time_has_no_value(row):
    nan = dataclasses.replace(row(1.0, backend="jax"), wall_ms=Samples([float("nan")] * 9))
    (table,) = median_tables([row(1.0), nan])
    assert [cell.text for cell in table.rows[0][1] if cell.status] == ["not measured"]


def test_markdown_is_a_table_whatever_a_run_says(make_run, row):
    rows = [row(1.0, backend=HOSTILE, form=HOSTILE), row(2.0)]
    folder = make_run(rows, environment={"cpu": {"model": HOSTILE}, "packages": {"torch": HOSTILE}})
    text = table_texts(folder)["markdown"]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)[<`$@]|(?<!\\)\]\(|(?<!:)(?<!\\)://", text)
    assert "\x00" not in text


def test_latex_says_nothing_of_its_own_whatever_a_run_says(make_run, row):
    rows = [row(1.0, backend=HOSTILE, form=HOSTILE), row(2.0)]
    folder = make_run(rows, environment={"cpu": {"model": HOSTILE}, "packages": {"torch": HOSTILE}})
    text = table_texts(folder, ["latex"])["latex"]
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    allowed = {
        *"begin end centering small setlength tabcolsep caption resizebox ifdim width textwidth else".split(),
        *"fi toprule midrule bottomrule cmidrule multicolumn shortstack scriptsize textbf".split(),
        *"textbackslash textasciitilde textasciicircum textless textgreater textbar textquotedbl".split(),
        *"textasciigrave ldots".split(),
    }
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= allowed
    assert body.isascii()
    bare = re.sub(r"\\[^a-zA-Z]", "", body)
    assert not set("$#~^<`") & set(bare.replace("\\width>", ""))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    (line,) = [line for line in body.splitlines() if "textbf" in line]
    columns = re.search(r"begin\{tabular\}\{(r+)\}", body).group(1)
    assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1


def test_escapes():
    assert latex("a\\b") == r"a\textbackslash{}b"
    assert latex("x-y--z") == "x-y{-}{-}z"
    assert markdown("cpu, float32: 2 (a)") == "cpu, float32: 2 (a)"


def test_bad_words_and_nothing_to_show(make_run, rows, row):
    folder = make_run(rows)
    for words, says in (
        ({"formats": ["markdwon"]}, "--format markdwon: did you mean 'markdown'?"),
        ({"metrics": ["wal"]}, "--metric wal: did you mean 'wall'?"),
        ({"metrics": ["device"]}, "--metric device: no row of .* has it; there is: wall, memory, error"),
    ):
        with pytest.raises(BadInput, match=says) as error:
            table_texts(folder, **words)
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="no row with a time"):
        table_texts(make_run([row(None, status="oom")], "none"))


def test_the_command(make_run, rows, mtbench, tmp_path):
    folder = make_run(rows)
    done = mtbench("table", folder)
    assert done.returncode == 0, done.stderr
    assert "| seq\\_len | b-bad/parallel (ms) |" in done.stdout
    done = mtbench("table", folder, "--format", "markdown,latex", "--metric", "memory", "--out", "a/t")
    assert done.stdout == "table: a/t.md\ntable: a/t.tex\n", done.stderr
    assert "\\toprule" in (tmp_path / "a" / "t.tex").read_text()
    done = mtbench("table", folder, "--metric", "wal")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
