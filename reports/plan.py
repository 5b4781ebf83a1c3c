"""Which figures a run gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mtbench.floor import NOT_MEASURED, NOWHERE_MEASURED, Ceilings
from mtbench.results import Measurement

from .figures import Axis, Figure, line_figures
from .scaling import scaling_figures
from .scatter import roofline_figures, speed_figures
from .settings import Context, Names, Shape
from .winners import WinnerMap, winner_maps

__all__ = ["AnyFigure", "plan_figures"]

AnyFigure = Figure | WinnerMap


def plan_figures(
    rows: Sequence[Measurement], ceilings: Mapping[str, Mapping[str, Ceilings]] = NOWHERE_MEASURED
) -> list[AnyFigure]:
    """The figures of a run, each context's together: who wins where, the sweeps over seq_len, the others.
    The ceilings are those of each kind of machine."""
    names = Names(rows)
    tried = list({r.id: r for r in rows if r.status not in ("unsupported", "unavailable")}.values())
    figures: list[AnyFigure] = [*winner_maps(rows)]
    for axis, members in _sweeps(tried):
        figures += line_figures(axis, members, names)
        if axis in ("seq_len", None):
            figures += speed_figures(axis, members, names)
    figures += scaling_figures(tried, names)
    contexts: dict[Context, list[Measurement]] = {}
    for row in tried:
        contexts.setdefault(Context.of(row), []).append(row)
    for context, members in contexts.items():
        figures += roofline_figures(members, names, ceilings.get(context.hardware, NOT_MEASURED))
    return sorted(_told_apart(figures), key=lambda f: f.context.key)


def _told_apart(figures: Iterable[AnyFigure]) -> Iterable[AnyFigure]:
    """Those whose file another one has get a number."""
    taken: set[str] = set()
    for figure in figures:
        number = 2
        unique = figure.name
        while unique in taken:
            unique, number = f"{figure.name}-{number}", number + 1
        taken.add(unique)
        yield replace(figure, name=unique)


def _sweeps(rows: Sequence[Measurement]) -> list[tuple[Axis | None, list[Measurement]]]:
    """The rows in groups that differ in one size: every setting with several lengths; around settings of one
    length the sweeps of batch, head_dim and heads; and alone what no sweep covers.
    """
    found: list[tuple[Axis | None, list[Measurement]]] = []
    settings = _grouped(rows, "seq_len")
    lone = [g for g in settings if len(_values(g, "seq_len")) == 1]
    found += [("seq_len", g) for g in settings if len(_values(g, "seq_len")) > 1]
    lone_ids = {row.id for group in lone for row in group}
    covered: set[str] = set()
    axes: tuple[Axis, ...] = ("batch", "head_dim", "heads")
    for axis in axes:
        for group in _grouped(rows, axis):
            ids = {row.id for row in group}
            if len(_values(group, axis)) > 1 and ids & lone_ids:
                found.append((axis, group))
                covered |= ids
    found += [(None, group) for group in lone if not {row.id for row in group} & covered]
    return found


def _values(rows: Iterable[Measurement], axis: Axis) -> set[int]:
    return {getattr(row.case, axis) for row in rows}


def _grouped(rows: Iterable[Measurement], axis: Axis) -> list[list[Measurement]]:
    """Rows that are equal in everything but the axis (and the attention, backend and form)."""
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        sizes = {"seq_len": row.case.seq_len, **Shape.of(row.case).__dict__}
        del sizes[axis]
        groups.setdefault((Context.of(row), *sizes.items()), []).append(row)
    return sorted(groups.values(), key=lambda g: min((Shape.of(r.case).key, r.case.seq_len) for r in g))
