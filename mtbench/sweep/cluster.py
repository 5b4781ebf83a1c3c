"""The nodes of a cluster, and which of them are one kind of machine: logic alone, without an engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtbench.spec import DEVICES, Device
from mtbench.sweep.machine import SAME_MACHINE, Machine

__all__ = ["Node", "Slot", "kind_of", "kinds_of", "slots_of"]

NAME_LENGTH = 40
NOISE_WORDS = re.compile(
    r"\(r\)|\(tm\)|\b(cpu|processor|nvidia|\d+-core|corporation|graphics)\b|@.*", re.IGNORECASE
)
"""Of a model's name, what tells no two apart."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine, as it was found."""

    id: str
    """The engine's."""
    machine: Machine
    """What it says of itself; its label, too."""
    cpus: int
    """That the engine may give away there."""
    gpus: int
    facts: Mapping[str, Any]
    """For the record."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where one row is measured at a time, and all of what it needs there."""

    node: Node
    number: int
    """Of the slots of its node."""
    cpus: int
    gpus: int
    threads: int


def slots_of(node: Node, device: Device) -> list[Slot]:
    """The places of a node. A row on a CPU has the whole node: what ran beside it would be in its figures.
    Rows on GPUs have one each, and their share of the CPUs, at least one."""
    threads: int = node.machine.environment["threads"]
    if device == "cpu":
        return [Slot(node=node, number=1, cpus=node.cpus, gpus=0, threads=threads)] if node.cpus else []
    share = max(1, node.cpus // max(1, node.gpus))
    count = min(node.gpus, node.cpus)
    return [
        Slot(node=node, number=number, cpus=share, gpus=1, threads=min(threads, share))
        for number in range(1, count + 1)
    ]


def kinds_of(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The nodes by kind, and the kinds by a name. Two are of one kind where their label, hardware, system and
    threads are the same and no package has two versions; which packages there are may differ.

    The same nodes give the same kinds, whatever their order and the engine's names for them.
    """
    groups: list[list[Node]] = []
    for node in sorted(
        nodes, key=lambda n: (n.machine.label, json.dumps(n.machine.environment, sort_keys=True))
    ):
        for group in groups:
            if _alike(merged(group), node.machine):
                group.append(node)
                break
        else:
            groups.append([node])
    kinds: dict[str, list[Node]] = {}
    for group in groups:
        name = wanted = _name(group[0].machine)
        number = 2
        while name in kinds:
            name, number = f"{wanted}-{number}", number + 1
        kinds[name] = group
    return dict(sorted(kinds.items()))


def kind_of(node: Node, kinds: Mapping[str, Machine]) -> str | None:
    """Of which of the kinds it is; None: of none of them."""
    return next((name for name, machine in kinds.items() if _alike(machine, node.machine)), None)


def merged(nodes: Sequence[Node]) -> Machine:
    """The kind of these nodes, which are alike: it has the devices and packages, and can run what any of them
    has and can run."""
    first = nodes[0].machine
    packages: dict[str, Any] = {}
    for node in nodes:
        packages |= node.machine.environment["packages"]
    return replace(
        first,
        environment={**first.environment, "packages": dict(sorted(packages.items()))},
        devices={device: _any([node.machine.devices[device] for node in nodes]) for device in DEVICES},
        unavailable={
            asked: {d: _any([node.machine.unavailable[asked][d] for node in nodes]) for d in DEVICES}
            for asked in first.unavailable
        },
        nodes=[dict(node.facts) for node in nodes],
    )


def _any(problems: Sequence[str | None]) -> str | None:
    return None if None in problems else "; ".join(dict.fromkeys(filter(None, problems)))


def _alike(one: Machine, other: Machine) -> bool:
    a, b = one.environment, other.environment
    same = all(a.get(key) == b.get(key) for key in SAME_MACHINE if key != "packages")
    here, there = a["packages"], b["packages"]
    return same and one.label == other.label and all(here[p] == there[p] for p in here.keys() & there.keys())


def _name(machine: Machine) -> str:
    """Its label, or its GPUs and else its CPU, in small letters, digits and dashes.

    >>> environment = {"gpus": [], "cpu": {"model": "AMD EPYC 7763 64-Core Processor"}, "threads": 8}
    >>> _name(Machine(environment=environment, devices={}, unavailable={}))
    'amd-epyc-7763-8-threads'
    >>> environment["gpus"] = [{"name": "NVIDIA H100 80GB HBM3"}] * 2
    >>> _name(Machine(environment=environment, devices={}, unavailable={}))
    '2x-h100-80gb-hbm3'
    """
    if machine.label:
        return _slug(machine.label)
    gpus = [str(gpu.get("name", "gpu")) for gpu in machine.environment["gpus"]]
    if gpus:
        count = f"{len(gpus)}x-" if len(gpus) > 1 else ""
        return count + "-".join(dict.fromkeys(map(_slug, gpus)))
    model = machine.environment["cpu"].get("model") or machine.environment["cpu"].get("machine") or "cpu"
    return f"{_slug(model)}-{machine.environment['threads']}-threads"


def _slug(name: str) -> str:
    return (
        re.sub(r"[^a-z0-9]+", "-", NOISE_WORDS.sub(" ", name).lower()).strip("-")[:NAME_LENGTH] or "unnamed"
    )
