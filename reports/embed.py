"""What a page carries beside its text: scripts by their hash, a packed library, and data."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

__all__ = ["as_json", "packed", "plotly_js", "script_hash"]


def plotly_js() -> str:
    """The library that draws the explorer: plotly.js, whole and minified, as the Python package has it."""
    found = importlib.util.find_spec("plotly")  # not imported: its data alone are wanted
    assert found is not None and found.origin is not None  # noqa: S101, PT018  (a dependency)
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """How a page's policy names the one script it allows: ``sha256-...``."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"sha256-{digest}"


def packed(script: str) -> str:
    """A script as text that a page unpacks when it is first needed: a third of the size, and a reader who
    never looks at it does not wait for it. The same script gives the same text.
    """
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()


def as_json(value: Any) -> str:
    r"""JSON that may stand in a script element, whatever its strings hold: no sign in it ends the element,
    begins a comment or is a line's end to JavaScript alone.

    >>> as_json(["</script><!--&", "\u2028"])
    '["\\u003c/script\\u003e\\u003c!--\\u0026","\\u2028"]'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # all beyond ASCII is escaped already
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
