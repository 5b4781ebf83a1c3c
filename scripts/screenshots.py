"""The pictures of docs/gallery.md, taken anew: of the committed runs, in the pages of today's code.

`python scripts/screenshots.py` writes them all into docs/images; names choose some. It wants the dependency
group `test` and a Chromium, found on the path or named in MTBENCH_CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mtbench.report import write_report  # noqa: E402

IMAGES = ROOT / "docs" / "images"
RUNS = ROOT / "docs" / "results"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
MOST_BYTES = 250_000
COLOURS = 256


def top(page: Page) -> None:
    """As the report opens."""


def at(selector: str) -> Callable[[Page], None]:
    """With that at the top of the window."""

    def go(page: Page) -> None:
        page.locator(selector).first.evaluate("(it) => { it.scrollIntoView(); scrollBy(0, -12); }")

    return go


def explorer(page: Page) -> None:
    """The explorer, drawn."""
    at("#explore")(page)
    page.wait_for_selector("#ex-plot[data-drawn]")
    at("#explore")(page)


def open_row(page: Page) -> None:
    """The table of momentum's rows, one of them opened."""
    page.locator("#words").fill("momentum triton")
    page.locator("td button.open").first.click()
    page.locator("tr.detail dl").first.wait_for()
    at("#rows")(page)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture."""

    name: str
    run: str
    """A folder of docs/results; of a profile its file."""
    show: Callable[[Page], None]
    width: int = 1280
    height: int = 860
    scheme: str = "light"


SHOTS = (
    Shot(name="report", run="cpu-default", show=top),
    Shot(name="verdict", run="h100-peers", show=at("#verdict h4")),
    Shot(name="figures", run="h100-peers", show=at("#figures")),
    Shot(name="explorer", run="h100-peers", show=explorer),
    Shot(name="row", run="h100-peers", show=open_row, scheme="dark"),
    Shot(name="skipped", run="h100-peers", show=at("#missing")),
    Shot(name="machines", run="three-kinds", show=top),
    Shot(name="beside", run="three-kinds", show=at("#beside")),
    Shot(name="profile", run="h100-profiles/momentum-torch-eager-chunked.json", show=top),
    Shot(name="training", run="h200-listops", show=top),
    Shot(name="drawn", run="h200-mnist-generation", show=at("#samples"), height=700),
    Shot(name="phone", run="cpu-default", show=top, width=390, height=844),
)


def start(playwright: object) -> Browser:
    """The system's Chromium, without a network."""
    path = os.environ.get("MTBENCH_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        sys.exit("no Chromium: install one, or name it in MTBENCH_CHROMIUM")
    alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return playwright.chromium.launch(  # type: ignore[attr-defined]
        executable_path=path, args=["--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", *alone]
    )


def made(run: str, scratch: Path) -> Path:
    """The page of a copy of a run, or of a profile's file."""
    source, copied = RUNS / run, scratch / run
    if source.is_dir():
        shutil.copytree(source, copied, ignore=shutil.ignore_patterns("figures", "report.html"))
    else:
        copied.parent.mkdir(parents=True)
        shutil.copy(source, copied)
    return write_report(copied)


def take(browser: Browser, shot: Shot, report: Path) -> bytes:
    """One picture as PNG, in few colours: a report has few."""
    size = {"width": shot.width, "height": shot.height}
    context = browser.new_context(viewport=size, color_scheme=shot.scheme, device_scale_factor=1.5)
    page = context.new_page()
    page.goto(report.as_uri())
    shot.show(page)
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    packed = io.BytesIO()
    # The median cut gives a dot of few pixels another's colour.
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        packed, "PNG", optimize=True
    )
    return packed.getvalue()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="Which. [default: all]")
    parser.add_argument("--out", type=Path, default=IMAGES, help="[default: docs/images]")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {shot.name for shot in SHOTS}:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}")
    wanted = [shot for shot in SHOTS if not arguments.names or shot.name in arguments.names]
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        pages = {run: made(run, Path(scratch)) for run in dict.fromkeys(shot.run for shot in wanted)}
        browser = start(playwright)
        for shot in wanted:
            file = arguments.out / f"{shot.name}.png"
            file.write_bytes(take(browser, shot, pages[shot.run]))
            size = file.stat().st_size
            print(f"{file.name}: {size // 1000} kB")
            if size > MOST_BYTES:
                sys.exit(f"{file} is larger than {MOST_BYTES // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main()
