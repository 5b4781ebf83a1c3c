"""The pages of several runs: a comparison and a trend."""

from __future__ import annotations

import doctest
import importlib
import re
from xml.etree import ElementTree as ET

import pytest

from mtbench.compare.beside import set_beside
from mtbench.compare.sides import read_side
from mtbench.trend import read_runs, trend_of
from reports.comparison_page import comparison_html
from reports.course import _chosen
from reports.marks import ticks
from reports.trend_page import trend_html
from tests.compare.conftest import benchmark_file, launches, two_runs, write_run
from tests.reports.parsed import Page
from tests.trend.conftest import make_runs, run_of

__all__ = ["make_runs", "two_runs"]  # fixtures of other folders

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://x.test/a onerror=alert(1)>%s{{7*7}}"
    "\x00\u202e\ud800 漢字 ]]> -->"
)


def compared(*folders, **options):
    sides = [read_side(folder) for folder in folders]
    return comparison_html(sides, set_beside(sides, **options))


def checked(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)), "ids must be unique"
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.events == []
    assert "script" not in page.tags
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "script-src" not in text
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "url(http" not in text
    for svg in re.findall(r"<svg .*?</svg>(?=\s*</(?:figure|td)>)", text, re.DOTALL):
        root = ET.fromstring(svg)
        assert root.get("aria-label") or root.get("aria-hidden")
    return page


@pytest.mark.parametrize("name", ["comparison_page", "course", "marks", "runs", "strips"])
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(f"reports.{name}")).failed == 0


def test_two_runs(two_runs):
    text = compared(*two_runs)
    page = checked(text)
    assert "B, b: 1 broken 1 slower 1 faster 37 same" in page.text
    order = ["Regressions", "Broken", "Slower", "Faster 1", "Same", "Not matched", "Only in B: 1 case"]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    assert "why wrong" in page.text
    assert "commit 0123456789ab and fedcba987654" in page.text
    assert text.count('class="strips"') == 1
    assert text.count('class="forest"') == 39
    assert re.search(r"1\.\d+ times \(1\.\d+ to 1\.\d+\): torch-eager/parallel/softmax", page.text)
    assert "A (a): 8 launches" in page.text
    assert "wall time (ms)" in page.text
    assert len(text) < 120_000


def test_every_figure_of_a_regression_has_both_runs_and_the_interval(two_runs):
    (svg,) = re.findall(r'<svg class="strips".*?</svg>(?=\s*</figure>)', compared(*two_runs), re.DOTALL)
    root = ET.fromstring(svg)
    kinds = [element.get("class") for element in root.iter()]
    assert kinds.count("median") == 16
    assert kinds.count("sample") == 2
    assert kinds.count("bar") == kinds.count("band") == 1
    assert "by the 95% interval" in root.get("aria-label")
    for element in root.iter("circle"):
        assert 0 <= float(element.get("cx").rstrip("%")) <= 100


def test_three_runs_have_the_first_as_baseline(two_runs):
    page = checked(compared(*two_runs, two_runs[0]))
    assert "2 runs against a" in page.text
    assert "B against A" in page.text
    assert "C against A" in page.text
    assert "C, a: 40 same" in page.text
    assert "None: no case is slower" in page.text
    assert "Every case, a column a run" in page.text


def test_two_clocks_beside_one_another_are_named(tmp_path):
    """B has the device clock, as A, and C the wall clock alone."""
    a, b, c = (
        write_run(
            tmp_path / name,
            {("jax", 64): launches(wall)},
            device_ms=None if device is None else {("jax", 64): launches(device)},
        )
        for name, wall, device in (("a", 2.0, 0.5), ("b", 2.0, 0.5), ("c", 2.0, None))
    )
    abreast = checked(compared(a, b, c)).text.partition("Every case, a column a run")[2]
    a_ms = r"50\d µs \(device\); 2\.0\d* ms \(wall\)"
    assert re.search(rf"{a_ms} 50\d µs \(device\) × 1\.\d+, \w+ 2\.0\d* ms \(wall\) ×", abreast), abreast[
        :400
    ]
    alone = checked(compared(a, b, b)).text.partition("Every case, a column a run")[2]
    assert "(device)" not in alone.partition("The runs")[0]


def test_unlike_machines_are_never_called_slower(tmp_path):
    keys = [("jax", 16 * (n + 1)) for n in range(6)]
    a = write_run(tmp_path / "a", {key: launches(1.0, seed=n) for n, key in enumerate(keys)})
    b = write_run(
        tmp_path / "b", {key: launches(2.0, seed=n) for n, key in enumerate(keys)}, cpu="Another CPU"
    )
    page = checked(compared(a, b))
    told = page.text.partition("How to read this page")[0]
    assert "unlike machines: CPU Some CPU and Another CPU" in told
    assert "6 cases side by side, not judged" in told
    assert "B takes longer in 6 of 6" in told
    assert "strips" not in page.tags
    for word in ("Regressions", "6 slower", "Slower 6", "drift"):
        assert word not in told
    asked = checked(compared(a, b, across_machines=True)).text
    assert "6 slower" in asked
    assert "unlike machines: CPU Some CPU and Another CPU. The verdicts were asked for all the same" in asked


def test_too_few_launches(tmp_path):
    a = write_run(tmp_path / "a", {("jax", 64): [1.0], ("jax", 128): "oom"})
    page = checked(compared(a, a))
    assert "1 unsure" in page.text
    assert "too few launches (1 in A, 1 in B)" in page.text
    assert "Without a time in both, for the same reason: 1 case" in page.text


def test_saved_benchmarks(tmp_path):
    for n in range(4):
        times = {f"t{k}": 0.001 * (1 + 0.002 * ((n + k) % 3)) for k in range(8)}
        benchmark_file(tmp_path / "a" / f"{n}.json", times)
        benchmark_file(tmp_path / "b" / f"{n}.json", {**times, "t5": times["t5"] * 1.3})
    text = compared(tmp_path / "a", tmp_path / "b")
    assert "1 slower" in checked(text).text
    assert text.count('class="strips"') == 1


def test_many_regressions_are_drawn_in_part(tmp_path):
    keys = [("jax", 16 * (n + 1)) for n in range(70)]
    a = {key: launches(1.0, seed=n) for n, key in enumerate(keys)}
    b = {key: launches(1.5, seed=n) for n, key in enumerate(keys)}
    text = compared(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b))
    assert text.count('class="strips"') == 60
    assert "10 further cases of the table are not drawn" in checked(text).text


def test_hostile_runs_are_text(tmp_path):
    rows = {(HOSTILE, 64 * n): launches(seed=n) for n in range(1, 6)}
    worse = {key: launches(1.5, seed=9) for key in rows} | {(HOSTILE, 1024): "crash"}
    environment = {"cpu": {"model": HOSTILE}, "packages": {HOSTILE: HOSTILE}, "git": {"commit": HOSTILE}}
    header = {"started": HOSTILE, "outcome": HOSTILE, "mtbench": HOSTILE}
    a = write_run(tmp_path / "a<b>&\"'", rows | {(HOSTILE, 1024): launches()}, **header)
    b = write_run(tmp_path / "b", worse, environment=environment, **header)
    for text in (
        compared(a, b),
        compared(a, b, a, across_machines=True),
        trend_html(trend_of([read_side(x) for x in (a, b, a, a, a)])),
    ):
        page = checked(text)
        assert "{{7*7}}" in page.text
        assert not set("\x00\u202e\ud800") & set(text)
        text.encode()


def test_a_trend(make_runs):
    text = trend_html(trend_of(read_runs(make_runs())))
    page = checked(text)
    assert "12 runs over their commits" in page.text
    assert "1 step slower 1 step faster" in page.text
    assert page.text.index("From 08cafe0 on") < page.text.index("From 06cafe0 on")
    assert text.count('class="course"') == 12
    assert "▲ +20%" in page.text
    assert "▼ −33%" in page.text
    figures = re.findall(r'<svg class="course".*?</svg>(?=\s*</figure>)', text, re.DOTALL)
    for svg in figures:
        root = ET.fromstring(svg)
        dots = [e for e in root.iter("circle") if e.get("class") == "dot-run"]
        crosses = [e for e in root.iter("text") if e.get("class") == "failed"]
        assert len(dots) + len(crosses) == 12
        assert max(float(e.get("cy")) for e in dots) <= 188
        assert min(float(e.get("cy")) for e in dots) >= 38
    assert "slower from 06cafe0 on, 1.2" in text


def test_a_trend_of_unlike_machines(make_runs, tmp_path):
    paths = [*make_runs(4), run_of(tmp_path / "there", 3, cpu="Another CPU")]
    page = checked(trend_html(trend_of(read_runs(paths))))
    assert "of 2 unlike machines, so each machine has a line of its own" in page.text
    assert "Another CPU, 2 threads: 1 run, 12 cases too few runs to tell" in page.text


def test_times_of_all_sizes(tmp_path):
    """A nanosecond and an hour, and runs that agree to the last digit."""
    sizes = {("jax", 16): [1e-6] * 4, ("jax", 32): [3.6e6] * 4, ("jax", 64): [1.0] * 4}
    paths = [
        write_run(tmp_path / str(n), {**sizes, ("jax", 64): [1.0 + (n > 3)] * 4}, started=f"2026-01-0{n + 1}")
        for n in range(8)
    ]
    checked(trend_html(trend_of(read_runs(paths))))
    checked(compared(paths[0], paths[7]))


def test_commits_below_a_figure_do_not_crowd():
    for runs, most in ((1, 5), (40, 40), (41, 40), (500, 12)):
        chosen = _chosen(runs, most, set())
        assert len(chosen) <= most
        assert runs - 1 in chosen
    assert ticks(1.0, 1.0 + 1e-9, 4)
