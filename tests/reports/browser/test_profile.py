"""The page of a profile in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

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
