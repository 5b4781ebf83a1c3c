"""The page of a profile in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

import reports.page
from mtbench.profile.names import profile_folder
from mtbench.results import Measurement, Run
from reports.profile_page import write_profile_page
from tests.profile.synthetic import gpu_profile

from .conftest import Open


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    gpu_profile(tmp_path)
    return write_profile_page(tmp_path)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_its_figures_are_drawn(visit: Open, page_file: Path, width: int) -> None:
    page = visit(page_file, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for kind in ("pieces", "memory", "flame", "roofline"):
        figure = page.locator(f"svg.{kind}")
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        assert box, kind
        assert box["width"] > 250, kind
    boxes = page.locator("svg.pieces svg.box").all()
    assert len(boxes) == 4
    first, *_, last = (box.bounding_box() or {} for box in boxes)
    assert first["x"] != last["x"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(visit: Open, page_file: Path, scheme: str) -> None:
    page: Any = visit(page_file, color_scheme=scheme)
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()


def test_a_report_leads_to_the_profiles_of_its_rows(
    visit: Open,
    tmp_path: Path,
    sweep: Callable[..., Iterator[Measurement]],
    save: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that the page has written out, and those that the script puts there."""
    monkeypatch.setattr(reports.page, "MAX_IN_PAGE", 5)
    rows = list(sweep(lengths=(256,)))
    folder = save(tmp_path / "run", rows)
    chosen = [rows[0].id, rows[-1].id]
    for row_id in chosen:
        profile_folder(folder, row_id).mkdir(parents=True)
        gpu_profile(profile_folder(folder, row_id))
        write_profile_page(profile_folder(folder, row_id))
    run = Run.load(folder)
    (folder / "report.html").write_text(reports.page.render(run, [], {}), encoding="utf-8")
    page = visit(folder / "report.html")
    while page.locator("#more button").is_visible():
        page.locator("#more button").click()
    links = page.locator("#all td a")
    assert links.all_text_contents() == ["compute-bound"] * 2
    told = {link.get_attribute("href") for link in links.all()}
    assert told == {f"profiles/{profile_folder(folder, row_id).name}/profile.html" for row_id in chosen}
    for href in told:
        assert (folder / str(href)).is_file()
