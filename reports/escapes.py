"""Text from a run inside Markdown and LaTeX: shown as it is, and never obeyed."""

from __future__ import annotations

import re

from .format import clean

__all__ = ["latex", "markdown"]

# Besides what marks up: what GitHub makes links of by itself, @name, http:// and www.
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#!|&~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
    # A bracket after a line's end would be its optional argument; and two hyphens would be a dash.
    "[": "{[}",
    "]": "{]}",
    "-": "{-}",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"\texttimes{}",
    "²": r"\texttwosuperior{}",
    "µ": r"\textmu{}",
}


def markdown(text: object) -> str:
    r"""One line of a Markdown table's cell or of a paragraph.

    >>> markdown("a_b|<b>\n[x](http://y)")
    'a\\_b\\|\\<b\\> \\[x\\](http\\://y)'
    """
    return _MARKDOWN.sub(lambda found: f"\\{found.group()}", clean(text))


def latex(text: object) -> str:
    r"""One line for any LaTeX; a lone hyphen stays as it is. What pdflatex has no letter for, beyond Latin-1,
    becomes a question mark, because pdflatex would stop at it.

    >>> latex("torch-eager 5% of_a\\b{c}--d 漢")
    'torch-eager 5\\% of\\_a\\textbackslash{}b\\{c\\}{-}{-}d ?'
    """
    shown = re.sub(r"(?<!-)-(?!-)", "\0", clean(text))
    return "".join(_LATEX.get(c, c if c < "\u0100" else "?") for c in shown).replace("\0", "-")
