"""The pages of several runs in a browser: seen, printed, tabbed through, and by who cannot see them."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from mtbench.compare.beside import set_beside
from mtbench.compare.sides import read_side
from mtbench.trend import read_runs, trend_of
from reports.comparison_page import comparison_html
from reports.trend_page import trend_html
from tests.compare.conftest import BACKENDS, launches, write_run
from tests.trend.conftest import KEYS, run_of


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    keys = [(backend, 16 * (n + 1)) for backend in BACKENDS for n in range(5)]
    a = {key: launches(1.0, seed=n) for n, key in enumerate(keys)}
    b = {**a, keys[1]: launches(1.2), keys[2]: launches(0.8), keys[3]: "wrong"}
    paths = [
        write_run(folder / "a", a),
        write_run(folder / "b", b),
        write_run(folder / "c", a, cpu="Another CPU @ 3.20GHz"),
    ]
    sides = [read_side(path) for path in paths]
    page = folder / "comparison.html"
    page.write_text(comparison_html(sides, set_beside(sides)), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def trend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trend")
    runs = [
        run_of(
            folder / f"{n:02d}", n, {KEYS[0]: 1.3 if 8 <= n < 12 else 1.0, KEYS[2]: 1.1 if n > 20 else 1.0}
        )
        for n in range(26)
    ]
    runs.append(run_of(folder / "there", 4, cpu="Another CPU @ 3.20GHz"))
    page = folder / "trend.html"
    page.write_text(trend_html(trend_of(read_runs(runs))), encoding="utf-8")
    return page


@pytest.fixture(params=["comparison", "trend"])
def several(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, several, scheme):
    page = visit(several, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    serious = [
        (v["id"], [n["html"][:200] for n in v["nodes"][:3]])
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("width", [360, 390, 1280, 2200])
def test_nothing_is_wider_than_the_screen(visit, several, width):
    page = visit(several, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_figure_is_cut_off_or_on_another(visit, several, width):
    page = visit(several, viewport={"width": width, "height": 800})
    found = page.evaluate(
        """() => [...document.querySelectorAll("figure svg.strips, figure svg.course")]
            .filter((svg) => svg.checkVisibility()).flatMap((svg) => {
          const room = svg.closest("section").getBoundingClientRect();
          const texts = [...svg.querySelectorAll("text")]
            .filter((t) => getComputedStyle(t).display !== "none");
          const boxes = texts.filter((t) => !t.getAttribute("transform"))
            .map((t) => [t.textContent, t.getBoundingClientRect()]);
          const out = boxes.filter(([, b]) => b.left < room.left || b.right > room.right)
            .map(([t]) => `cut: ${t}`);
          boxes.forEach(([t, a], n) => boxes.slice(n + 1).forEach(([u, b]) => {
            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (across > 1 && down > 3) out.push(`${t} on ${u}`);
          }));
          return out;
        })"""
    )
    assert found == []
    assert page.locator("figure svg").first.is_visible()


def test_all_of_it_is_reached_by_keyboard(visit, several):
    page = visit(several)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.tagName + (document.activeElement.ariaLabel ?? '')")
        )
    assert {"A", "SUMMARY"} <= reached
    assert page.locator('.scroll[tabindex="0"]').count() == page.locator(".scroll").count()
    details = page.locator("details").first
    details.locator("summary").press("Enter")
    assert details.evaluate("(element) => element.open")


def test_prints_the_figures_and_no_links(visit, several):
    page = visit(several)
    page.emulate_media(media="print")
    assert page.locator("figure svg").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_hostile_names_are_text(visit, tmp_path):
    hostile = "<img src=x onerror=alert(1)></script><script>alert(2)</script><a href='http://x.test'>l</a>"
    rows = {(hostile, 16 * n): launches(seed=n) for n in range(1, 7)}
    worse = {key: launches(1.5, seed=n) for n, key in enumerate(rows)}
    environment = {"cpu": {"model": hostile}, "packages": {hostile: hostile}, "git": {"commit": hostile}}
    paths = [write_run(tmp_path / "a", rows), write_run(tmp_path / "b", worse, environment=environment)]
    sides = [read_side(path) for path in paths]
    pages = {
        "c": comparison_html(sides, set_beside(sides, across_machines=True)),
        "t": trend_html(trend_of(sides)),
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        page = visit(tmp_path / f"{name}.html")
        assert page.locator("img, script, iframe, section a[href^=http]").count() == 0
        assert "<img src=x onerror=alert(1)>" in page.locator("main").text_content()
