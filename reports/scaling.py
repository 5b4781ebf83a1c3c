"""How one sequence scales over devices: against one device at the same length (strong), and against one with
as many positions as each of several has (weak)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS
from mtbench.work import tokens

from . import format as fmt
from .figures import Figure, Point, gathered, not_drawn
from .settings import Context, Names, Shape

__all__ = ["Scaled", "scaled", "scaling_figures"]


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A row over several devices, or over one beside which there are such."""

    row: Measurement
    alone: Measurement | None
    """The same on one device."""
    part: Measurement | None
    """One device with as many positions as each of the row's."""

    @property
    def devices(self) -> int:
        """How many."""
        return self.row.case.world_size

    @property
    def setting(self) -> str:
        """Where and how, and the sizes."""
        return f"{Context.of(self.row).on_one.label}; {Shape.of(self.row.case).label()}"

    @property
    def speed_up(self) -> float | None:
        """Times as fast as one device, by the wall clock; None where that was not measured."""
        return None if self.alone is None else _ms(self.alone) / _ms(self.row)

    @property
    def efficiency(self) -> float | None:
        """The speed-up over the number of devices: 1 is ideal."""
        return None if self.speed_up is None else self.speed_up / self.devices

    @property
    def weak_efficiency(self) -> float | None:
        """The time of one device with its part alone over that of all with theirs: 1 is ideal, for linear
        and momentum attention."""
        return None if self.part is None else _ms(self.part) / _ms(self.row)

    @property
    def cells(self) -> tuple[str, ...]:
        """For the page: time, tokens a second, speed-up, both efficiencies, what was sent, what was waited
        and each device's peak memory."""
        exchange, case = self.row.exchange, self.row.case
        sent, waited = exchange.get("sent_bytes"), exchange.get("exposed_ms")
        peak = self.row.peak_memory_bytes
        return (
            fmt.duration(_ms(self.row)),
            f"{tokens(case) / _ms(self.row) * 1e3:,.0f}",
            _ratio(self.speed_up, "{:.2f}"),
            _ratio(self.efficiency, "{:.0%}"),
            _ratio(self.weak_efficiency, "{:.0%}"),
            f"{sent / 1024:,.1f} KiB" if isinstance(sent, int) else "–",
            fmt.duration(waited) if isinstance(waited, int | float) else "–",
            f"{peak / 2**20:,.1f} MiB" if peak is not None else "–",
        )


def _ratio(value: float | None, text: str) -> str:
    return "–" if value is None else text.format(value)


def _ms(row: Measurement) -> float:
    assert row.wall_ms is not None  # noqa: S101  (`scaled` has those that are timed)
    return row.wall_ms.median


def scaled(rows: Sequence[Measurement]) -> list[Scaled]:
    """The timed rows of each case that was measured over several devices, one device first."""
    timed = {_key(row, row.case.world_size, row.case.seq_len): row for row in rows if row.ranked}
    several = {_key(row, 1, row.case.seq_len) for row in timed.values() if row.case.world_size > 1}
    found = []
    for row in timed.values():
        n, devices = row.case.seq_len, row.case.world_size
        if _key(row, 1, n) not in several:
            continue
        part = timed.get(_key(row, 1, n // devices)) if n % devices == 0 else None
        found.append(Scaled(row=row, alone=timed.get(_key(row, 1, n)), part=part))
    return sorted(found, key=_order)


def _key(row: Measurement, devices: int, n: int) -> tuple[object, ...]:
    case = row.case.replace(world_size=1, seq_len=n)
    return row.backend, row.form, row.hardware, devices, case


def _order(one: Scaled) -> tuple[object, ...]:
    row, case = one.row, one.row.case
    alike = Context.of(row).key, Shape.of(case).key, ATTENTIONS.index(case.spec.kind), row.backend, row.form
    device, dtype, mode, causal, _, hardware = alike[0]
    return (device, dtype, mode, causal, hardware, *alike[1:], case.spec.beta, case.seq_len, one.devices)


def scaling_figures(rows: Sequence[Measurement], names: Names) -> Iterable[Figure]:
    """Speed-up against devices at each length, and efficiency at each number of positions a device."""
    every = scaled(rows)
    yield from _figures(
        "strong", every, names, lambda one: one.row.case.seq_len, lambda one: one.speed_up,
        "Speed-up over one device (times)", "Strong scaling", "seq_len {}",
        "How many times as fast as one device at the same length; the grey line is the number of devices.",
    )  # fmt: skip
    yield from _figures(
        "weak", [one for one in every if one.row.case.seq_len % one.devices == 0], names,
        lambda one: one.row.case.seq_len // one.devices, lambda one: one.weak_efficiency,
        "Efficiency (ratio)", "Weak scaling", "{} positions a device",
        "The time of one device with its own positions alone over that of all; the grey line is 1. "
        "Softmax has more to do with every device that others' keys come from.",
    )  # fmt: skip


def _figures(
    which: str,
    every: Sequence[Scaled],
    names: Names,
    size: Callable[[Scaled], int],
    value: Callable[[Scaled], float | None],
    unit: str,
    title: str,
    at: str,
    caption: str,
) -> Iterable[Figure]:
    groups: dict[tuple[object, ...], list[Scaled]] = {}
    for one in every:
        context = Context.of(one.row).on_one
        groups.setdefault((context, Shape.of(one.row.case), size(one)), []).append(one)
    for members in groups.values():
        by_id = {one.row.id: one for one in members}

        def point(row: Measurement, by_id: dict[str, Scaled] = by_id) -> Point | None:
            found = value(by_id[row.id])
            return None if found is None else Point(row, found, found, found)

        panels, absent = gathered([one.row for one in members], names, point, lambda p: p.row.case.world_size)
        xs = sorted({int(p.x) for panel in panels for series in panel.series for p in series.points})
        if len(xs) < 2:
            continue
        context, shape = Context.of(members[0].row).on_one, Shape.of(members[0].row.case)
        where = at.format(size(members[0]))
        yield Figure(
            name=f"scaling-{which}-{context.slug}-{shape.slug}-n{size(members[0])}",
            quantity="scaling",
            axis="world_size",
            unit=unit,
            clock="wall",
            title=f"{title}: {context.label}; {shape.label()}, {where}",
            caption=caption + not_drawn(absent),
            alt=f"{unit} against devices, {xs[0]} to {xs[-1]}; panels "
            f"{fmt.listing([panel.title for panel in panels])}.",
            context=context,
            panels=panels,
            ideal=1 if which == "strong" else 0,
        )
