"""What run.json says before the first row: the command, the plan, the machine and the code; and whether a run
may be gone on with here and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import mtbench
from mtbench.backend import Backend
from mtbench.errors import BadInput
from mtbench.support import support_of
from mtbench.sweep.code import fingerprints
from mtbench.sweep.executor import Executor
from mtbench.sweep.executors import new_executor
from mtbench.sweep.machine import SAME_MACHINE, Machine
from mtbench.sweep.plan import PlannedRow, orders
from mtbench.sweep.settings import Settings
from mtbench.workloads import Workload

__all__ = [
    "check_same",
    "executor_from",
    "machines_from",
    "new_header",
    "settings_from",
    "workload_from",
]


def new_header(
    command: Sequence[str],
    workload: Workload,
    rows: Sequence[PlannedRow],
    backends: Mapping[str, Backend],
    settings: Settings,
    machines: Mapping[str, Machine],
    executor: Executor,
) -> dict[str, Any]:
    """That of a run which is about to begin.

    Args:
        command: the words it was asked for with, no absolute path among them.
        workload: what is measured.
        rows: the plan of it.
        backends: by the names they were asked for.
        settings: how.
        machines: on what, by name.
        executor: by what.
    """
    return {
        "mtbench": mtbench.__version__,
        "command": list(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "outcome": "running",
        "plan": {
            "preset": workload.name or None,
            "why": workload.why,
            **executor.plan,
            "seed": settings.seed,
            "sampling": settings.sampling.to_dict(),
            "threads": settings.threads,
            "timeout_s": settings.timeout_s,
            "memory_limit_bytes": settings.memory_limit_bytes,
            "launches": settings.launches,
            "interleaved": settings.interleaved,
            "backends": list(backends),
            "workload": workload.to_dict(),
            "rows": [row.id for row in rows],
            "order": _order(rows, settings),
        },
        "code": fingerprints(backends),
        **_machines(machines, [support_of(backend) for backend in backends.values()]),
    }


def _order(rows: Sequence[PlannedRow], settings: Settings) -> list[list[int]]:
    """Launch by launch, which of the planned rows comes first, second and so on, counted from 0."""
    places = {row.id: place for place, row in enumerate(rows)}
    return [[places[row.id] for row in launch] for launch in orders(rows, **settings.order)]


def _machines(machines: Mapping[str, Machine], support: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One alone stands in the header itself; those with names beside each other, and what cannot run here
    says nothing of them."""
    if list(machines) == [""]:
        return {"environment": dict(machines[""].environment), "workers": {}, "support": list(support)}
    return {
        "machines": {name: {**found.to_dict(), "workers": {}} for name, found in machines.items()},
        "support": [{**entry, "unavailable": {}} for entry in support],
    }


def machines_from(header: Mapping[str, Any]) -> dict[str, Machine]:
    """The kinds of machine of a run of several; none where it is of one machine."""
    return {name: Machine.from_dict(found) for name, found in header.get("machines", {}).items()}


def executor_from(header: Mapping[str, Any], address: str | None) -> Executor:
    """The executor that a run is gone on with by.

    Raises:
        BadInput: as `new_executor`.
    """
    plan = header["plan"]
    name = plan.get("executor", "local")
    return new_executor(name, address, plan.get("accelerator"), plan.get("wait_s"))


def workload_from(header: Mapping[str, Any]) -> tuple[Workload, tuple[str, ...]]:
    """What a run measures, and the backends as they were asked for.

    Raises:
        BadInput: an mtbench wrote it that could not be resumed yet.
    """
    plan = header["plan"]
    if "workload" not in plan:
        raise BadInput(
            f"this run was begun by mtbench {header.get('mtbench', '?')}, which wrote no plan that can be "
            "gone on with: begin a new one"
        )
    return Workload.from_dict(plan["workload"]), tuple(plan["backends"])


def settings_from(header: Mapping[str, Any], workload: Workload) -> Settings:
    """How a run measures."""
    plan = header["plan"]
    return Settings(
        sampling=workload.sampling,
        threads=plan["threads"] if "threads" in plan else header["environment"]["threads"],
        timeout_s=plan["timeout_s"],
        memory_limit_bytes=plan["memory_limit_bytes"],
        launches=plan["launches"],
        interleaved=plan["interleaved"],
        seed=plan["seed"],
    )


def check_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Whether rows measured now may stand beside those of the old header.

    Raises:
        BadInput: the machine, the packages, the code or the plan is another; the line says which.
    """
    machines = [
        {key: header.get("environment", {}).get(key) for key in SAME_MACHINE} for header in (old, new)
    ]
    differences = [*_differences(*machines), *_differences(old["code"], new["code"], values=False)]
    before, now = old["plan"]["rows"], new["plan"]["rows"]
    if before != now:
        changed = sorted(set(before) ^ set(now))
        differences.append(f"the plan ({', '.join(changed[:3]) or 'its order'})")
    if differences:
        raise BadInput(
            "it cannot be gone on with here, as rows of two kinds would stand in one run. Changed since: "
            + "; ".join(differences)
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], *, values: bool = True) -> list[str]:
    found = []
    for key in dict.fromkeys((*old, *new)):
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += [f"{key} {difference}" for difference in _differences(before, now)]
        elif before != now:
            found.append(f"{key} ({before} then, {now} now)" if values else key)
    return found
