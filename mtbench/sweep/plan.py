"""From a workload and backends to the rows of a run: what will be measured, on which kinds of machine, and
what is known not to be."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mtbench.backend import Backend, is_interpreted
from mtbench.errors import BadInput, nearest
from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS, DEVICES, Case
from mtbench.sweep.machine import Machine
from mtbench.workloads import Grid, Workload

__all__ = ["PlannedRow", "order", "orders", "place_rows", "plan_rows"]


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row to be measured, or one whose outcome the declarations already tell."""

    case: Case
    asked: str
    """The backend as it was asked for: a name, or the path of a file."""
    backend: str
    """Its own name."""
    form: str
    hardware: str = ""
    """The kind of machine that it is for, in a run of several."""
    decided: Measurement | None = None

    @property
    def id(self) -> str:
        """That of its measurement."""
        return self.outcome("ok", "").id

    def outcome(self, status: str, reason: str) -> Measurement:
        """A row of this case and form that holds no measurement."""
        return Measurement(
            case=self.case,
            backend=self.backend,
            form=self.form,
            hardware=self.hardware,
            status=status,  # type: ignore[arg-type]
            reason=reason,
        )


def plan_rows(workload: Workload, backends: dict[str, Backend]) -> list[PlannedRow]:
    """The rows by backend, then by case, then by form, on no machine in particular (`place_rows`).

    Args:
        workload: what to measure.
        backends: by the names they were asked for.

    Raises:
        BadInput: a form that no backend of the sweep has, or a workload without a row.
    """
    known = {
        form for backend in backends.values() for kind in _kinds(workload) for form in backend.forms(kind)
    }
    for form in workload.named_forms:
        if form not in known:
            raise BadInput(f"unknown form {form!r}: {nearest(form, sorted(known))}")
    rows = []
    for asked, backend in backends.items():
        seen: set[str] = set()
        for grid in workload.grids:
            for case in grid.cases():
                for form in _forms(grid, backend, case, named=bool(workload.named_forms)):
                    row = PlannedRow(case=case, asked=asked, backend=backend.name, form=form)
                    if row.id not in seen:
                        seen.add(row.id)
                        rows.append(replace(row, decided=_decided(row, backend)))
    if not rows:
        raise BadInput(f"nothing to measure: {_nothing(workload, backends)}")
    return rows


def place_rows(rows: Sequence[PlannedRow], machines: Mapping[str, Machine]) -> list[PlannedRow]:
    """The rows once for each kind of machine that has their device; a backend that none of a kind can run is
    unavailable there.

    Raises:
        BadInput: no machine has a device of the plan.
    """
    for device in dict.fromkeys(row.case.device for row in rows):
        problems = {machine.devices[device] for machine in machines.values()}
        if None not in problems:
            there = [d for d in DEVICES if any(machine.devices[d] is None for machine in machines.values())]
            raise BadInput(
                f"device {device!r} is not there: {'; '.join(sorted(filter(None, problems)))}; "
                f"there is: {', '.join(there)}"
            )
    return [
        _placed(replace(row, hardware=name), machine)
        for name, machine in machines.items()
        for row in rows
        if machine.devices[row.case.device] is None
    ]


def _placed(row: PlannedRow, machine: Machine) -> PlannedRow:
    if row.decided is not None:
        return replace(row, decided=row.outcome(row.decided.status, row.decided.reason))
    reason = machine.unavailable[row.asked][row.case.device]
    return row if reason is None else replace(row, decided=row.outcome("unavailable", reason))


def order(rows: Sequence[PlannedRow], *, seed: int, interleaved: bool) -> list[PlannedRow]:
    """The order they are measured in.

    Interleaved: case by case, and within a case backends and forms shuffled by the seed, so that what drifts
    meanwhile (heat, a neighbour) falls on all alike. A worker of each backend then lives to the end.
    Otherwise as planned, backend by backend: one worker lives at a time, and no idle one holds memory.
    """
    if not interleaved:
        return list(rows)
    by_case: dict[str, list[PlannedRow]] = {}
    for row in rows:
        by_case.setdefault(row.case.id, []).append(row)
    shuffle = random.Random(seed).shuffle  # noqa: S311  (an order, no secret)
    for together in by_case.values():
        shuffle(together)
    return [row for together in by_case.values() for row in together]


def orders(
    rows: Sequence[PlannedRow], *, seed: int, interleaved: bool, launches: int
) -> list[list[PlannedRow]]:
    """That of each launch, every one by a seed of its own."""
    return [order(rows, seed=seed + launch, interleaved=interleaved) for launch in range(launches)]


def _kinds(workload: Workload) -> Iterable[str]:
    return dict.fromkeys(kind for grid in workload.grids for kind in grid.attention)


def _nothing(workload: Workload, backends: Mapping[str, Backend]) -> str:
    """Why a sweep has no row, and what there would be."""
    kinds = tuple(_kinds(workload))
    has = {b.name: tuple(kind for kind in ATTENTIONS if b.forms(kind)) for b in backends.values()}
    if any(kind in kinds for found in has.values() for kind in found):
        return f"the sweep takes none of the forms that {' or '.join(has)} has: name one by --form"
    told = "; ".join(f"{name} has {', '.join(found) or 'none'}" for name, found in has.items())
    return f"no form of {', '.join(kinds)} attention: {told}"


def _forms(grid: Grid, backend: Backend, case: Case, *, named: bool) -> Sequence[str]:
    """See `Workload.named_forms`."""
    if named:
        return grid.form or ()
    if not grid.interpreted and is_interpreted(backend, case.device):
        return ()
    own = [form for form in backend.forms(case.spec.kind) if form not in grid.without]
    return own if grid.form is None else [form for form in own if form in grid.form]


def _decided(row: PlannedRow, backend: Backend) -> Measurement | None:
    limit = backend.unsupported(row.case, row.form)
    return None if limit is None else row.outcome("unsupported", str(limit))
