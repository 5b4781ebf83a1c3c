"""How large a report of many rows is, how long it takes to make, and how soon Chromium shows it.

`python scripts/report_at_size.py --json FILE` makes a synthetic run of 5,000 rows, as the tests of the page
do, writes its report with every figure, and opens it several times with no network. It wants the dependency
group `test` and a Chromium, found on the path or named in MTBENCH_CHROMIUM.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from screenshots import start  # noqa: E402

from mtbench.registry import import_part  # noqa: E402
from tests.reports.conftest import full_rows, write_run  # noqa: E402

SEEN = "new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(() => f(performance.now()))))"
"""Milliseconds from the start of the navigation until the page has been painted."""
FOUND = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def opened(browser: Browser, report: Path, rows: int) -> dict[str, float]:
    """One opening, in seconds: painted, parsed, and every row at hand for the filter."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(report.as_uri(), wait_until="commit")
    painted = page.evaluate(SEEN) / 1e3
    page.wait_for_load_state("domcontentloaded")
    parsed = page.evaluate(FOUND) / 1e3
    page.wait_for_function(f"document.getElementById('shown').textContent === '{rows} of {rows} rows'")
    at_hand = time.perf_counter() - began
    context.close()
    return {"painted_s": painted, "parsed_s": parsed, "all_rows_s": at_hand}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--times", type=int, default=7, help="Openings. [default: 7]")
    parser.add_argument("--json", type=Path, help="Write the figures there.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        lengths, batches = range(64, 64 * 37, 64), (1, 8, 16)
        every = {row.id: row for row in full_rows(lengths=lengths, batches=batches)}
        rows = list(islice(every.values(), arguments.rows))
        if len(rows) < arguments.rows:
            parser.error(f"--rows: {len(rows)} at the most")
        folder = write_run(Path(scratch) / "run", rows)
        began = time.perf_counter()
        report = import_part("reports.page").write_report(folder)
        made = time.perf_counter() - began
        browser = start(playwright)
        times = [opened(browser, report, len(rows)) for _ in range(arguments.times)]
        found = {
            "rows": len(rows),
            "figures": len(list((folder / "figures").glob("*.svg"))),
            "bytes": report.stat().st_size,
            "made_s": round(made, 1),
            "chromium": browser.version,
            "openings": [{name: round(value, 3) for name, value in t.items()} for t in times],
        }
        browser.close()
    size = f"{found['bytes'] / 1e6:.2f} MB"
    print(f"{found['rows']} rows, {found['figures']} figures: {size}, made in {made:.0f} s")
    for name in times[0]:
        values = sorted(t[name] for t in times)
        print(f"{name}: median {statistics.median(values):.2f}, from {values[0]:.2f} to {values[-1]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
