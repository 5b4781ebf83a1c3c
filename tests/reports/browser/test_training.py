"""The page of a training run in a browser: by who cannot see it, dark, and on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from reports.training_page import write_training_report
from tests.training.synthetic import made_run, written


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "run"
    written(made_run(statuses={("softmax", 1): "diverged"}), folder)
    return write_training_report(folder)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, training, scheme):
    page = visit(training, color_scheme=scheme)
    serious = [
        (v["id"], [n["html"][:200] for n in v["nodes"][:3]])
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_on_a_phone_only_tables_and_figures_scroll(visit, training):
    page = visit(training, viewport={"width": 390, "height": 844})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    assert page.locator("figure").count() == 4
