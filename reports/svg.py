"""matplotlib's SVG files, made fit to stand together in one HTML page."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from .format import clean
from .style import THEMED

__all__ = ["inline_svg"]

_DROPPED = {"metadata", "script", "title"}


def inline_svg(text: str, *, prefix: str, title: str) -> Any:
    """An SVG to put into HTML: ids and references carry the prefix, so that two figures do not share one; it
    scales to its container, names itself to a screen reader, follows the page's colours, and holds no script,
    no metadata and no address.

    Args:
        text: what matplotlib wrote (this process's own output, never a file of the run).
        prefix: letters, digits and hyphens; different for every figure of a page.
        title: the text that stands for the figure.
    """
    from markupsafe import Markup

    root = ET.fromstring(text)  # noqa: S314  # this process's own output
    _clean(root, prefix)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-labelledby": f"{prefix}-title",
        "preserveAspectRatio": "xMinYMin meet",
    }
    told = ET.Element("title", {"id": f"{prefix}-title"})
    told.text = clean(title)
    root.insert(0, told)
    # ElementTree wrote it, escaped.
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))  # noqa: S704


def _clean(element: ET.Element, prefix: str) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)
    element.tag = _local(element.tag)
    if element.tail is not None and not element.tail.strip():
        element.tail = "\n" if element.tag == "g" else None
    if element.text is not None and not element.text.strip():
        element.text = None
    attributes = {}
    for name, value in element.attrib.items():
        key = _local(name)
        if key == "id":
            value = f"{prefix}-{value}"
        elif key == "href":
            value = f"#{prefix}-{value.removeprefix('#')}"
        value = value.replace("url(#", f"url(#{prefix}-")
        if key == "d":
            value = _path(value)
        if element.tag == "use" and key in ("x", "y"):
            value = f"{float(value):.2f}"
        if key in ("style", "fill", "stroke"):
            for color, variable in THEMED.items():
                value = value.replace(color, f"var({variable}, {color})")
        if not (key == "id" and element.tag == "g"):  # nothing refers to a group
            attributes[key] = value
    element.attrib = attributes
    if element.tag == "g":
        _say_once(element)


def _say_once(group: ET.Element) -> None:
    """Give a group the style that all of its markers have, in their place: half the size of a long sweep."""
    styles = {child.get("style") if child.tag == "use" else None for child in group}
    if len(group) > 1 and len(styles) == 1 and (style := styles.pop()) and "style" not in group.attrib:
        group.set("style", style)
        for child in group:
            del child.attrib["style"]


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _path(value: str) -> str:
    """A path with a hundredth of a point's precision: a third of the size and no visible difference."""
    short = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(short.split())
