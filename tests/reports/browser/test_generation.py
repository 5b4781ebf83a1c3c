"""The page of generated images in a browser: by who cannot see it, dark, and on a phone."""

from __future__ import annotations

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from mtbench.generation.sheet import sheet_png
from reports.generation_page import write_generation_report
from tests.generation.test_page import folder, row


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    out = tmp_path_factory.mktemp("generation") / "run"
    (out / "samples").mkdir(parents=True)
    png = sheet_png(np.full((3, 28, 28, 1), 90, np.uint8))
    (out / "samples" / "momentum-seed0.png").write_bytes(png)
    small = row("momentum", (0.5, 0.6), shape=(14, 14, 1), trained_size=False, check=None)
    rows = [row("linear", (1.0, 1.1)), row("momentum", (1.0, 1.2)), small]
    folder(out, [*rows, row("softmax", (), status="oom", reason="no room", check=None)])
    return write_generation_report(out)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, generated, scheme):
    page = visit(generated, color_scheme=scheme)
    serious = [
        (v["id"], [n["html"][:200] for n in v["nodes"][:3]])
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_sheet_is_shown_and_only_tables_and_figures_scroll_on_a_phone(visit, generated):
    page = visit(generated, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # What is told of a likelihood is scrolled to, and not set a word a line.
    assert page.locator("#results tbody td:last-child").first.evaluate("(cell) => cell.offsetWidth") > 190
    assert page.evaluate("document.querySelector('#samples img').naturalWidth") > 3 * 28
    assert page.locator("figure.curves").count() == 2
