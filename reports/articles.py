"""The verdict section of the page: an article a context and clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtbench.results import Measurement

from .growth import growths
from .payback import paybacks
from .verdict import Verdict, judge

__all__ = ["articles"]


def articles(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The verdicts of one context and clock together: which are told in words, which have a sweep to cross
    over in, and which have one length only; how their forms grow; and, in a context's first, what compiling
    costs, which is a matter of the wall clock alone.
    """
    verdicts, paid = judge(rows), paybacks(rows)
    groups: dict[tuple[object, ...], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.context, verdict.clock), []).append(verdict)
    shown = []
    for members in groups.values():
        swept = [v for v in members if len(v.lengths) > 1]
        compared = [v for v in members if any(c.compared for c in v.crossovers)]
        shown.append(
            {
                "first": members[0],
                "members": members,
                "worded": swept or members[:1],
                "attentions": list(dict.fromkeys(a for v in members for a in v.attentions)),
                "crossed": [v for v in compared if v in swept],
                "single": [v for v in compared if v not in swept],
                "left_out": [v for v in members if v.left_out],
                "growths": [(v, grown) for v in swept if (grown := growths(v))],
                "paybacks": [
                    (v.shape, told) for v in members if (told := paid.pop((v.context, v.shape), []))
                ],
            }
        )
    return shown
