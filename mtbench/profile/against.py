"""Two profiles side by side: which kernels, or operators, make the difference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mtbench.profile.record import Kernel, Operator, Profile

__all__ = ["Against", "Line", "against_of", "aligned", "plain_name", "telling_name"]

HASH = re.compile(r"[_.-]?\b[0-9a-f]{8,}\b|(?<=[a-z])[_.]\d+\b")
"""What differs between two builds of one kernel: digests, and the numbers that compilers put behind names."""

ALIKE = re.compile(r"^void |\bat::native::|\(anonymous namespace\)::")
"""What the names of PyTorch's kernels begin with, so that what tells them apart would be cut."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A kernel, or several of one name, on both sides; None: it is not there."""

    name: str
    a_ms: float | None
    b_ms: float | None
    a_calls: float
    b_calls: float

    @property
    def more_ms(self) -> float:
        """By how much B takes longer."""
        return (self.b_ms or 0.0) - (self.a_ms or 0.0)


@dataclass(frozen=True, kw_only=True)
class Against:
    """B, held against A."""

    a: Profile
    b: Profile
    what: str
    """What the lines are: ``kernels``, ``operators``; empty where one side has none."""
    lines: tuple[Line, ...]
    """The largest difference first."""
    gaps: tuple[Line, ...]
    """Of the host's time: before the first kernel, between kernels, after the last."""
    differs: tuple[tuple[str, str, str], ...]
    """In what the two are not the same: a name and both values."""


def against_of(a: Profile, b: Profile) -> Against:
    """B against A. Of what, whether of two backends, forms, commits or cases, `Against.differs` tells."""
    lines: tuple[Line, ...] = ()
    gaps: tuple[Line, ...] = ()
    what = ""
    if a.traced and b.traced:
        if a.traced.kernels and b.traced.kernels:
            what, lines = "kernels", aligned(a.traced.kernels, b.traced.kernels)
        elif a.traced.operators and b.traced.operators:
            what, lines = "operators", aligned(a.traced.operators, b.traced.operators)
        gaps = tuple(
            Line(name=name, a_ms=one, b_ms=other, a_calls=1, b_calls=1)
            for name, one, other in (
                ("before the first", a.traced.before_ms, b.traced.before_ms),
                ("between", a.traced.between_ms, b.traced.between_ms),
                ("after the last", a.traced.after_ms, b.traced.after_ms),
            )
        )
    return Against(a=a, b=b, what=what, lines=lines, gaps=gaps, differs=_differs(a, b))


def plain_name(name: str) -> str:
    """A kernel's name without what another build of it would have otherwise.

    >>> plain_name("triton_poi_fused_add_0"), plain_name("ynn_fusion.13"), plain_name("void copy<4>(int)")
    ('triton_poi_fused_add', 'ynn_fusion', 'copy<4>(int)')
    """
    return HASH.sub("", name.removeprefix("void ")).strip()


def telling_name(name: str) -> str:
    """A kernel's name from where it differs from others of its framework, for whoever cuts it.

    >>> telling_name("void at::native::reduce_kernel<512, at::native::ReduceOp<float>>")
    'reduce_kernel<512, ReduceOp<float>>'
    """
    return ALIKE.sub("", name)


def aligned(
    a: Sequence[Kernel] | Sequence[Operator], b: Sequence[Kernel] | Sequence[Operator]
) -> tuple[Line, ...]:
    """Kernels of one name together. Where a name is on one side alone it is tried without its numbers, and
    several that are the same without them make one line."""
    named_a, named_b = {one.name for one in a}, {one.name for one in b}
    both = named_a & named_b

    def key(name: str) -> str:
        return name if name in both else plain_name(name)

    sides: list[dict[str, list[float]]] = []
    for side in (a, b):
        totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for one in side:
            total = totals[key(one.name)]
            total[0] += one.ms if isinstance(one, Kernel) else one.self_ms
            total[1] += one.calls
        sides.append(totals)
    lines = [
        Line(
            name=name,
            a_ms=sides[0][name][0] if name in sides[0] else None,
            b_ms=sides[1][name][0] if name in sides[1] else None,
            a_calls=sides[0][name][1] if name in sides[0] else 0.0,
            b_calls=sides[1][name][1] if name in sides[1] else 0.0,
        )
        for name in dict.fromkeys((*sides[0], *sides[1]))
    ]
    return tuple(sorted(lines, key=lambda line: -abs(line.more_ms)))


def _differs(a: Profile, b: Profile) -> tuple[tuple[str, str, str], ...]:
    def facts(one: Profile) -> dict[str, str]:
        git = one.environment.get("git") or {}
        return {
            "backend": one.row.backend,
            "form": one.row.form,
            "case": one.row.case.id,
            "commit": str(git.get("commit", ""))[:7],
            "packages": ", ".join(f"{k} {v}" for k, v in one.environment.get("packages", {}).items()),
            "cpu": str((one.environment.get("cpu") or {}).get("model", "")),
            "gpu": ", ".join(str(gpu.get("name")) for gpu in one.environment.get("gpus") or ()),
            "threads": str(one.environment.get("threads", "")),
        }

    before, after = facts(a), facts(b)
    return tuple((key, before[key], after[key]) for key in before if before[key] != after[key])
