"""The table of all rows: filter, sort, save, open."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from mtbench.results import Run


def column(page, title):
    """What the visible rows have in a column, without small print."""
    return page.evaluate(
        """(title) => {
            const heads = [...document.querySelectorAll("#all thead th")];
            const at = heads.findIndex((head) => head.textContent === title);
            return [...document.querySelectorAll("#all tbody tr:not(.detail)")].map((row) => {
                const cell = row.cells[at].cloneNode(true);
                for (const child of cell.querySelectorAll("small, button")) child.remove();
                return cell.textContent.trim();
            });
        }""",
        title,
    )


@pytest.fixture
def page(visit, report):
    return visit(report)


def test_filters_by_words_and_by_column(page, report):
    rows = list(Run.load(report.parent))
    page.locator("#filter").get_by_label("Filter").fill("jax recurrent")
    assert set(column(page, "backend")) == {"jax"}
    assert set(column(page, "form")) == {"recurrent"}
    page.locator("#filter").get_by_label("Attention").select_option("momentum")
    wanted = [r for r in rows if (r.backend, r.form, r.case.spec.kind) == ("jax", "recurrent", "momentum")]
    assert page.locator("#shown").text_content() == f"{len(wanted)} of {len(rows)} rows"
    page.locator("#filter").get_by_label("Filter").fill("")
    page.locator("#filter").get_by_label("Attention").select_option("")
    page.locator("#filter").get_by_label("Status").select_option("wrong")
    assert column(page, "status") == ["wrong"] * sum(r.status == "wrong" for r in rows)


def test_sorts_both_ways_by_keyboard_and_says_so(page):
    head = page.locator("#all thead th", has_text="wall")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    values = page.evaluate(
        """() => {
            const heads = [...document.querySelectorAll("#all thead th")];
            const at = heads.findIndex((head) => head.textContent === "wall");
            const rows = [...document.querySelectorAll("#all tbody tr")];
            return rows.map((row) => row.cells[at].dataset.v ?? null);
        }"""
    )
    numbers = [float(v) for v in values if v is not None]
    assert numbers == sorted(numbers)
    assert values[len(numbers) :] == [None] * (len(values) - len(numbers))
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("#all thead th", has_text="backend").locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, "backend") == sorted(column(page, "backend"))


def test_saves_what_is_shown(page, tmp_path: Path):
    page.locator("#filter").get_by_label("Backend").select_option("jax")
    page.locator("#all thead th", has_text="device time").locator("button").click()
    with page.expect_download() as started:
        page.get_by_role("button", name="Save these as CSV").click()
    path = tmp_path / "rows.csv"
    started.value.save_as(path)
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert {line["backend"] for line in lines} == {"jax"}
    assert f"{len(lines)} of " in page.locator("#shown").text_content()
    times = [float(line["device time (ms)"]) for line in lines if line["device time (ms)"]]
    assert times == sorted(times)
    assert len(times) > 10


def test_a_row_opens_and_closes_by_keyboard(page):
    page.locator("#filter").get_by_label("Filter").fill("torch-eager sdpa")
    button = page.locator("td button.open").first
    button.focus()
    page.keyboard.press("Enter")
    opened = page.locator("tr.detail")
    opened.locator("dl").first.wait_for()
    assert button.get_attribute("aria-expanded") == "true"
    text = opened.text_content()
    assert "torch-eager/sdpa/softmax" in text
    assert "wall clock: 12 samples" in text
    assert "Worker torch-eager on cuda" in text
    assert opened.locator("svg[role=img]").count() == 2
    assert opened.locator("circle").count() == 24
    # What is open stays with its row.
    page.locator("#all thead th", has_text="seq_len").locator("button").click()
    assert (
        opened.evaluate("(row) => row.previousSibling.cells[0].querySelector('button').ariaExpanded")
        == "true"
    )
    button = page.locator("td button.open[aria-expanded=true]")
    button.focus()
    page.keyboard.press("Enter")
    assert opened.count() == 0


def test_what_the_kernel_chose_is_shown(visit, make_run, row):
    from reports.page import write_report

    page = visit(write_report(make_run([row(1.0, row={"config": {"block": 64, "warps": 4}})])))
    page.locator("td button.open").click()
    page.locator("tr.detail dl").first.wait_for()
    assert "What the kernel choseblock64warps4" in page.locator("tr.detail").text_content()
