"""The whole page: without scripts, in print, to who cannot see it, of a hostile run and of a large one."""

from __future__ import annotations

import time

import pytest
from axe_playwright_python.sync_playwright import Axe

from mtbench.results import Run
from reports.page import write_report


def test_without_scripts_there_are_the_figures_and_the_table(visit, report):
    page = visit(report, java_script_enabled=False)
    assert page.locator("figure svg").first.is_visible()
    assert page.locator("#all tbody tr").count() == len(Run.load(report.parent).measurements)
    for gone in ("#explore", "#to-explore", "#filter", "#more"):
        assert not page.locator(gone).is_visible()


def test_prints_the_figures_and_not_the_controls(explore, report):
    page = explore(report)
    page.emulate_media(media="print")
    assert page.locator("figure svg").first.is_visible()
    for gone in ("#explore", "nav", "#filter"):
        assert not page.locator(gone).is_visible()
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(explore, report, scheme):
    page = explore(report, color_scheme=scheme)
    page.locator("#words").fill("momentum jax")
    page.locator("td button.open").first.click()
    page.locator("tr.detail dl").first.wait_for()
    found = Axe().run(page).response["violations"]
    serious = [
        (v["id"], [n["html"][:200] for n in v["nodes"][:3]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_phone_scrolls_nothing_sideways(explore, report):
    page = explore(report, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Why something is not done is scrolled to, and not set a word a line.
    reasons = page.locator("[aria-label=Limits] tbody td:nth-last-child(2)")
    assert reasons.first.evaluate("(cell) => cell.offsetWidth") > 190


HOSTILE = (
    "<img src=x onerror=alert(1)><b>bold</b></script><script>alert(2)</script>"
    "<a href='http://x.test'>l</a>%{x}$x^2$\u2028&lt;i&gt;"
)


def test_hostile_strings_are_text(explore, make_run, row):
    rows = [
        row(n / 100, backend=HOSTILE[:39], form=HOSTILE[28:], seq_len=n, row={"config": {HOSTILE: HOSTILE}})
        for n in (128, 256)
    ]
    rows.append(row(None, status="error", row={"reason": HOSTILE}))
    page = explore(write_report(make_run(rows, workers={HOSTILE[:39]: {HOSTILE: HOSTILE}})))
    assert HOSTILE[:20] in page.locator("#ex-series").text_content()
    box = page.locator("#ex-plot .points path.point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#ex-plot .hoverlayer text")
    assert "<img src=x onerror=alert(1)><b>bold</b>" in page.locator("#ex-plot .hoverlayer").text_content()
    for button in page.locator("td button.open").all():
        button.click()
    page.locator("tr.detail dl").nth(4).wait_for()
    assert HOSTILE.replace("\u2028", " ") in page.locator("tr.detail").first.text_content()
    assert page.locator("img, #ex-plot a, tr.detail a, #all b, iframe").count() == 0
    assert page.locator("head script").count() == 1  # plotly's


@pytest.fixture(scope="module")
def large(tmp_path_factory, sweep, save, write_page):
    rows = {r.id: r for r in sweep(lengths=range(64, 64 * 37, 64), batches=(1, 8, 16))}
    empty = Run.load(save(tmp_path_factory.mktemp("large") / "run", []))
    return write_page(empty.with_measurements(tuple(rows.values())[:5000]))


@pytest.mark.alone
def test_five_thousand_rows_open_fast_and_all_of_them_can_be_found(visit, large):
    assert large.stat().st_size < 8_000_000
    times = []
    for _ in range(3):
        start = time.perf_counter()
        page = visit(large)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        times.append(time.perf_counter() - start)
    # 2 s is the aim; a busy machine may take twice that.
    assert min(times) < 4
    page.wait_for_function("document.getElementById('shown').textContent === '5000 of 5000 rows'")
    assert page.locator("#all tbody tr").count() == 400
    page.get_by_role("button", name="Show more").click()
    assert page.locator("#all tbody tr").count() == 800
    page.get_by_label("Filter").fill("momentum torch-eager recurrent")
    matching = int(page.locator("#shown").text_content().split()[0])
    assert 100 < matching < 400
    assert page.locator("#all tbody tr").count() == matching
    page.locator("#all tbody tr").last.locator("button.open").click()
    page.locator("tr.detail dl").first.wait_for()
    assert "torch-eager/recurrent/momentum" in page.locator("tr.detail").text_content()
