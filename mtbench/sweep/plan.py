"""From a workload and backends to the rows of a run: what will be measured, and what is known not to be."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mtbench.backend import Backend, is_interpreted
from mtbench.errors import BadInput, nearest
from mtbench.results import Measurement
from mtbench.spec import Case
from mtbench.workloads import Grid, Workload

__all__ = ["PlannedRow", "order", "orders", "plan_rows"]


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row to be measured, or one whose outcome the declarations already tell."""

    case: Case
    asked: str
    """The backend as it was asked for: a name, or the path of a file."""
    backend: str
    """Its own name."""
    form: str
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
            status=status,  # type: ignore[arg-type]
            reason=reason,
        )


def plan_rows(workload: Workload, backends: dict[str, Backend]) -> list[PlannedRow]:
    """The rows by backend, then by case, then by form.

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
        raise BadInput("nothing to measure: no backend has a form of these attentions")
    return rows


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
    if limit is not None:
        return row.outcome("unsupported", str(limit))
    reason = backend.unavailable(row.case.device)
    if reason is not None:
        return row.outcome("unavailable", reason)
    return None
