"""Chromium, headless, with no network, on reports of synthetic runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from mtbench.results import Run
from reports.drawing import draw
from reports.page import render
from reports.plan import plan_figures
from reports.style import backend_looks, form_dashes

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def chromium() -> str | None:
    """Its path: what MTBENCH_CHROMIUM says, else the system's."""
    return os.environ.get("MTBENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        told = "no Chromium: install one, or name it in MTBENCH_CHROMIUM"
        # Nobody would see in CI that the page is no longer tried.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(told)
    # Chromium's own sandbox does not start for root.
    alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--host-resolver-rules=MAP * ~NOTFOUND", *alone]
        )
        yield started
        started.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open a report; when the test ends, nothing was fetched but what was opened and nothing was complained
    of."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    fetched: list[str] = []
    asked_for: list[str] = []

    def go(path: Path, fragment: str = "", **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: fetched.append(request.url.partition("#")[0]))
        asked_for.append(path.as_uri())
        page.goto(path.as_uri() + fragment)
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in fetched if not url.startswith("blob:")} <= set(asked_for)


@pytest.fixture
def explore(visit: Open) -> Open:
    """Open a report and wait for its explorer's first plot."""

    def go(path: Path, fragment: str = "", **options: object) -> Page:
        page = visit(path, fragment, **options)
        page.locator("#explore").scroll_into_view_if_needed()
        page.wait_for_selector("#ex-plot[data-drawn]")
        return page

    return go


@pytest.fixture(scope="session")
def write_page() -> Callable[[Run], Path]:
    """The report of a run, without exports, and with one figure drawn of a kind: that of a quantity
    against an axis stands for all of its kind. Both take most of the time and are tried elsewhere."""

    def write(run: Run) -> Path:
        looks = backend_looks(row.backend for row in run)
        dashes = form_dashes(row.form for row in run)
        kinds: dict[object, str] = {}
        drawn = []
        for figure in plan_figures(list(run), run.ceilings):
            kind = (figure.quantity, getattr(figure, "axis", figure.context))
            if kind not in kinds:
                kinds[kind] = draw(figure, looks, dashes, formats=("svg",))["svg"].decode()
            drawn.append((figure, kinds[kind]))
        path = run.folder / "report.html"
        path.write_text(render(run, drawn, looks), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def report(tmp_path_factory, sweep, save, write_page) -> Path:
    """A run as on a GPU: two clocks, two modes, sweeps of three sizes, all that may go wrong."""
    rows = list(sweep(lengths=(256, 512, 1024), device="cuda"))
    rates = {"copy_bytes_per_s": 3e12, "matmul_flop_per_s": {"float32": 5e13}}
    workers = {"torch-eager on cuda": {"torch": "2.13.0", **rates}}
    return write_page(Run.load(save(tmp_path_factory.mktemp("browser") / "run", rows, workers=workers)))
