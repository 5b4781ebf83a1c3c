"""Whether a built site is whole: `nox -s docs` runs it over what Sphinx made.

Every link between its pages must lead to a page and, where it names one, to an anchor that is there; and no
page may fetch a script, a style, a font or a picture from another host.
"""

from __future__ import annotations

import argparse
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("image", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("use", "href"),
    ("video", "poster"),
    ("video", "src"),
}
IN_A_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """What one page links to, fetches, and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = IN_A_STYLE.findall(text)
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif (tag, name.removeprefix("xlink:")) in FETCHED:
                self.fetched.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


def is_elsewhere(address: str) -> bool:
    """Whether it is on another host, or in no file at all (``data:``, ``mailto:``)."""
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


def faults(site: Path) -> list[str]:
    """One line a fault, by page."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site}: no page is there"]
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        elsewhere = [address for address in page.fetched if is_elsewhere(address)]
        found += [f"{name}: fetches {address}" for address in elsewhere if not address.startswith("data:")]
        local = [address for address in (*page.links, *page.fetched) if not is_elsewhere(address)]
        for address in dict.fromkeys(local):
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else None
            if not target.is_file():
                found.append(f"{name}: {address} leads to nothing")
            elif parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
                found.append(f"{name}: {address} leads to no anchor")
    for style in sorted(site.rglob("*.css")):
        addresses = IN_A_STYLE.findall(style.read_text(encoding="utf-8"))
        found += [f"{style.relative_to(site)}: fetches {address}" for address in addresses]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="The folder that was built.")
    lines = faults(parser.parse_args().site)
    print("\n".join(lines) or "every link leads somewhere, and nothing is fetched from elsewhere")
    sys.exit(bool(lines))
