"""The explorer: what it draws is what the figures draw, and its state is in the address."""

from __future__ import annotations

import itertools

import pytest

from mtbench.results import Run
from reports.plan import plan_figures


def drawn(page):
    """The plot's lines: name, panel and points."""
    return page.evaluate(
        """document.getElementById("ex-plot").data.map((t) => ({
            told: t.hovertext[0], axis: t.xaxis, color: t.line.color,
            points: t.x.map((x, at) => [x, t.y[at], t.error_y.array?.[at], t.error_y.arrayminus?.[at]]),
        }))"""
    )


def redraw(page, action):
    before = page.locator("#ex-plot").get_attribute("data-drawn")
    action()
    page.wait_for_function("(n) => document.getElementById('ex-plot').dataset.drawn !== n", arg=before)


def choose(page, label, value):
    redraw(page, lambda: page.locator("#ex-form").get_by_label(label, exact=True).select_option(value))


def test_it_draws_what_the_figure_draws(explore, report):
    page = explore(report)
    (figure, *_) = [
        f
        for f in plan_figures(list(Run.load(report.parent)))
        if f.name.startswith("latency-device-seq_len-") and f.context.mode == "forward"
    ]
    found = drawn(page)
    expected = {
        f"<b>{s.backend}/{s.form}</b><br>{panel.title}": s.points
        for panel in figure.panels
        for s in panel.series
    }
    shown = {line["told"].partition(", seq_len")[0]: line["points"] for line in found}
    assert shown.keys() == expected.keys()
    for name, points in expected.items():
        assert [p[0] for p in shown[name]] == [p.x for p in points]
        assert [p[1] for p in shown[name]] == pytest.approx([p.y for p in points], rel=1e-4)
        highs = [p[1] + p[2] for p in shown[name]]
        assert highs == pytest.approx([p.high for p in points], rel=2e-4)
    assert [t.text_content() for t in page.locator("#ex-plot .annotation-text").all()] == [
        "softmax",
        "linear",
        "momentum",
    ]


def test_every_quantity_can_be_drawn(explore, report):
    page = explore(report)
    quantities = (
        "wall tokens-wall tokens-device tflops-wall tflops-device gbs-wall gbs-device floor "
        "roofline-wall roofline-device memory error"
    )
    for quantity in quantities.split():
        choose(page, "Show", quantity)
        lines = drawn(page)
        assert len(lines) > 5
        assert all(p[1] > 0 for line in lines for p in line["points"])


def test_no_two_labels_of_the_measured_axis_overlap(explore, report):
    page = explore(report)
    for decades in (0.3, 1.05, 1.5, 2.2, 3.5, 6):
        page.evaluate("(d) => Plotly.relayout('ex-plot', { 'yaxis.range': [-1.9, d - 1.9] })", decades)
        boxes = page.evaluate(
            """[...document.querySelectorAll("#ex-plot .yaxislayer-above .ytick text")]
                .map((t) => t.getBoundingClientRect()).map((box) => [box.top, box.bottom])"""
        )
        assert len(boxes) >= 2, decades
        middles = sorted((top + bottom) / 2 for top, bottom in boxes)
        digits = 0.7 * min(bottom - top for top, bottom in boxes)  # a line of text is higher than they are
        assert all(low - high >= digits for high, low in itertools.pairwise(middles)), decades


def test_rates_are_the_work_over_the_time(explore, report):
    page = explore(report)
    times = drawn(page)[0]["points"]
    choose(page, "Show", "tokens-device")
    rates = drawn(page)[0]["points"]
    for (n, ms, up, down), (m, rate, more, less) in zip(times, rates, strict=True):
        assert n == m
        assert rate == pytest.approx(n / (ms / 1e3))
        # A longer time is a lower rate.
        assert rate - less == pytest.approx(n / ((ms + up) / 1e3))
        assert rate + more == pytest.approx(n / ((ms - down) / 1e3))


def test_another_axis_holds_the_one_before(explore, report):
    page = explore(report)
    choose(page, "against", "batch")
    assert sorted({p[0] for line in drawn(page) for p in line["points"]}) == [1, 2, 4]
    assert page.locator("#ex-form").get_by_label("seq_len", exact=True).input_value() == "512"
    assert page.evaluate("document.getElementById('ex-plot').layout.xaxis.title.text") == "batch"


def test_panels_by_mode_and_a_filter_by_attention(explore, report):
    page = explore(report)
    choose(page, "Panels by", "mode")
    choose(page, "attention", "linear")
    titles = [t.text_content() for t in page.locator("#ex-plot .annotation-text").all()]
    assert titles == ["forward", "forward + backward"]
    assert all("linear" in line["told"] for line in drawn(page))


def test_a_line_goes_and_comes_by_keyboard_and_the_link_has_it(explore, report):
    page = explore(report)
    box = page.locator("#ex-series label", has_text="jax/chunked").locator("input")
    before = len(drawn(page))
    box.focus()
    redraw(page, lambda: page.keyboard.press("Space"))
    assert len(drawn(page)) < before
    assert "off=jax%2Fchunked" in page.url
    assert page.evaluate("document.activeElement.parentNode.textContent") == "jax/chunked"
    page.reload()
    page.wait_for_selector("#ex-plot[data-drawn]")
    assert not box.is_checked()
    redraw(page, lambda: page.locator("#ex-series").get_by_role("button", name="All").click())
    assert len(drawn(page)) == before


def test_a_link_restores_the_whole_view(explore, report):
    page = explore(report)
    choose(page, "Show", "memory")
    choose(page, "mode", "forward + backward")
    choose(page, "Panels by", "")
    redraw(page, lambda: page.get_by_label("log y").click())
    page.evaluate(
        "Plotly.relayout('ex-plot', {'xaxis.range[0]': 8.1, 'xaxis.range[1]': 9, 'yaxis.range': [1, 50]})"
    )
    page.wait_for_function("location.hash.includes('zoom.y')")
    view = """(({ layout, data }) => [layout.xaxis.range, ...data.map((t) => t.y)])(
        document.getElementById("ex-plot"))"""
    first, fragment = page.evaluate(view), page.evaluate("location.hash")
    again = explore(report, fragment)
    assert again.evaluate(view) == first
    assert again.locator("#ex-form").get_by_label("mode", exact=True).input_value() == "forward + backward"
    assert not again.get_by_label("log y").is_checked()
    assert again.evaluate("document.getElementById('ex-plot').layout.yaxis.range") == [1, 50]
    top = again.evaluate("document.getElementById('explore').getBoundingClientRect().top")
    assert 0 <= top < 200
    redraw(again, lambda: again.get_by_role("button", name="Start again").click())
    assert again.evaluate("location.hash") == "#explore?"


def test_a_link_that_means_nothing_gives_the_first_view(explore, report):
    page = explore(report)
    first = drawn(page)
    odd = "#explore?y=constructor&x=__proto__&panels=toString&only.mode=no&only.x=1&off=nobody&zoom.x=a+b"
    assert drawn(explore(report, odd)) == first


def test_nothing_to_show_is_said(explore, report):
    page = explore(report)
    page.locator("#ex-form").get_by_label("backend", exact=True).select_option("triton")
    page.locator("#ex-form").get_by_label("form", exact=True).select_option("xla")
    page.wait_for_function("document.getElementById('ex-note').textContent.startsWith('No row')")
    assert not page.locator("#ex-plot").is_visible()


def test_it_follows_light_and_dark(explore, report):
    page = explore(report)
    paper = "document.getElementById('ex-plot').layout.paper_bgcolor"
    assert page.evaluate(paper) == "#ffffff"
    light = drawn(page)[0]["color"]
    redraw(page, lambda: page.emulate_media(color_scheme="dark"))
    assert page.evaluate(paper) == "#161b22"
    assert drawn(page)[0]["color"] != light


def test_a_point_opens_its_row(explore, report):
    page = explore(report)
    at = page.evaluate("document.getElementById('ex-plot').data[0].customdata[0]")
    box = page.locator("#ex-plot .points path.point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#ex-plot .hoverlayer text")
    assert "95%:" in page.locator("#ex-plot .hoverlayer").text_content()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("tr.detail .opened dl")
    assert page.locator("tr.detail").evaluate("(row) => row.previousSibling.dataset.row") == str(at)


def test_no_button_sends_the_data_anywhere(explore, report):
    page = explore(report)
    buttons = [b.get_attribute("aria-label") for b in page.locator("#ex-plot .modebar-btn").all()]
    assert buttons == ["Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    page.locator("#ex-plot").hover()
    redraw(page, lambda: page.locator("#ex-form").get_by_label("Show", exact=True).select_option("wall"))
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function("location.hash.includes('zoom.x')")
    page.get_by_role("button", name="Reset axes").click()
    page.wait_for_function("!location.hash.includes('zoom')")
