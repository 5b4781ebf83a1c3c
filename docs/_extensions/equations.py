r"""Formulas as MathML, made when the site is built, and equations that are linked by the paper's numbers.

A browser draws MathML itself: no script, no font and no picture is fetched. A displayed formula with
``\tag{13}`` shows that number and can be linked as ``#eq-13``; what a docstring calls ``eq 13`` links there.
"""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree as ET

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

TAG = re.compile(r"\\tag\{(\w+)\}")
CITED = re.compile(r"\b([Ee]q) (\d+)(?:((?:, \d+)*),? (and|to|or) (\d+)|((?:, \d+)+))?")


def mathml(latex: str, display: str) -> str:
    """One formula; its source is kept for whoever copies it or listens to it."""
    made = convert(latex.strip(), display=display)
    try:
        unknown = [text for text in ET.fromstring(made).itertext() if "\\" in text]  # noqa: S314
    except ET.ParseError as error:
        unknown = [str(error)]
    if unknown:
        logger.warning("a formula cannot be shown: %s in %s", unknown, latex)
    return made.replace("<math ", f'<math alttext="{html.escape(latex.strip(), quote=True)}" ', 1)


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A displayed formula, with its number at the right."""
    latex = node.astext()
    number = TAG.search(latex)
    ids = "".join(f' id="{html.escape(name)}"' for name in node["ids"][:1])
    self.body.append(f'<div class="formula"{ids}><div>{mathml(TAG.sub("", latex), "block")}</div>')
    if number is not None:
        self.body.append(f'<a class="number" href="#{node["ids"][0]}">({number[1]})</a>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


class Numbered(SphinxTransform):
    """Makes a target of every formula that has a number."""

    default_priority = 200

    def apply(self, **kwargs: Any) -> None:
        """See `Transform.apply`."""
        for node in self.document.findall(nodes.math_block):
            if number := TAG.search(node.astext()):
                name = f"eq-{number[1]}".lower()
                node["names"].append(name)
                self.document.note_explicit_target(node, node)


def link_equations(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """``eq 13`` in a docstring becomes a link, outside of code."""

    def linked(found: re.Match[str]) -> str:
        text = f":ref:`{found[1]} {found[2]} <eq-{found[2]}>`"
        rest = found[0][found.end(2) - found.start() :]
        return text + re.sub(r"\d+", lambda n: f":ref:`{n[0]} <eq-{n[0]}>`", rest)

    for at, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        lines[at] = "".join(part if part.startswith("``") else CITED.sub(linked, part) for part in parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.add_transform(Numbered)
    app.connect("autodoc-process-docstring", link_equations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
