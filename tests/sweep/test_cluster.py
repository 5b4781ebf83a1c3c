"""Which nodes are one kind of machine, what fits on one, and which row goes where: no engine is needed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mtbench.spec import AttentionSpec, Case
from mtbench.sweep.cluster import Node, kind_of, kinds_of, merged, slots_of
from mtbench.sweep.executor import Step
from mtbench.sweep.machine import Machine
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.queue import Place, Queue


def node(
    name: str,
    model: str = "Some CPU",
    *,
    cpus: int = 4,
    gpus: int = 0,
    label: str = "",
    packages: dict[str, str] | None = None,
    lacks: str | None = None,
    **environment: Any,
) -> Node:
    return Node(
        id=name,
        cpus=cpus,
        gpus=gpus,
        facts={"cpus": cpus},
        machine=Machine(
            environment={
                "os": "Linux",
                "cpu": {"model": model},
                "gpus": [{"name": "NVIDIA H100"}] * gpus,
                "python": "3.11",
                "threads": cpus,
                "packages": packages or {},
                **environment,
            },
            devices={"cpu": None, "cuda": None if gpus else "no driver"},
            unavailable={"b": {"cpu": lacks, "cuda": lacks}},
            label=label,
        ),
    )


def names(kinds: dict[str, list[Node]]) -> dict[str, list[str]]:
    return {kind: sorted(node.id for node in nodes) for kind, nodes in kinds.items()}


@pytest.mark.parametrize(
    "other",
    [
        node("b", "Another CPU"),
        node("b", cpus=8),
        node("b", gpus=1),
        node("b", label="mine"),
        node("b", os="Linux 7"),
        node("b", packages={"torch": "2.12"}),
    ],
    ids=lambda found: found.id,
)
def test_what_differs_in_anything_that_counts_is_another_kind(other: Node) -> None:
    assert len(kinds_of([node("a", packages={"torch": "2.13"}), other])) == 2


def test_nodes_that_have_other_packages_are_alike_and_two_versions_of_one_are_not() -> None:
    nodes = [
        node("a", packages={"torch": "2.13"}),
        node("b", packages={"jax": "0.10"}),
        node("c", packages={"torch": "2.12"}),
        node("d", packages={"jax": "0.9"}),
    ]
    found = kinds_of(nodes)
    for members in found.values():
        versions = {
            name: {n.machine.environment["packages"].get(name) for n in members} - {None}
            for name in ("torch", "jax")
        }
        assert all(len(found) <= 1 for found in versions.values())
    assert sum(map(len, found.values())) == 4
    for seed in range(5):
        shuffled = random.Random(seed).sample(nodes, 4)
        assert names(kinds_of(shuffled)) == names(found)


def test_a_kind_has_what_any_of_its_nodes_has() -> None:
    kind = merged(
        [node("a", lacks="no such package", packages={"torch": "1"}), node("b", packages={"jax": "2"})]
    )
    assert kind.unavailable == {"b": {"cpu": None, "cuda": None}}
    assert kind.environment["packages"] == {"jax": "2", "torch": "1"}
    lacking = merged([node("a", lacks="one thing"), node("b", lacks="another"), node("c", lacks="one thing")])
    assert lacking.unavailable["b"]["cpu"] == "one thing; another"
    assert len(lacking.nodes) == 3


def test_kinds_have_names_of_their_own_and_are_known_again() -> None:
    kinds = kinds_of([node("a"), node("b", os="Linux 7"), node("c", label="My Machine/2")])
    assert list(kinds) == ["my-machine-2", "some-4-threads", "some-4-threads-2"]
    recorded = {name: Machine.from_dict(merged(nodes).to_dict()) for name, nodes in kinds.items()}
    for name, nodes in kinds.items():
        assert kind_of(nodes[0], recorded) == name
    assert kind_of(node("d", "Another CPU"), recorded) is None


def test_a_row_on_a_cpu_has_the_node_and_rows_on_gpus_have_one_each() -> None:
    whole = node("a", cpus=16, gpus=4)
    (alone,) = slots_of(whole, "cpu")
    assert (alone.cpus, alone.gpus, alone.threads) == (16, 0, 16)
    cards = slots_of(whole, "cuda")
    assert [(slot.cpus, slot.gpus, slot.threads) for slot in cards] == [(4, 1, 4)] * 4
    assert len({slot.number for slot in cards}) == 4
    assert slots_of(node("b"), "cuda") == []
    # More cards than CPUs: a worker without a CPU would be timed while it waits for one.
    assert len(slots_of(node("c", cpus=2, gpus=4), "cuda")) == 2


def steps(*rows: tuple[int, str], kind: str = "k") -> list[Step]:
    """A step for each seq_len and backend."""
    return [
        Step(
            index=index,
            framework="numpy",
            row=PlannedRow(
                case=Case(spec=AttentionSpec(), seq_len=seq_len),
                asked=backend,
                backend=backend,
                form="f",
                hardware=kind,
            ),
        )
        for index, (seq_len, backend) in enumerate(rows)
    ]


def place(name: str, kind: str = "k") -> Place:
    return Place(key=name, node=name, kind=kind)


def shown(step: Step | None) -> tuple[int, str] | None:
    return None if step is None else (step.row.case.seq_len, step.row.backend)


ROWS = [(8, "x"), (8, "y"), (64, "x"), (64, "y")]


def test_a_case_stays_at_one_place_and_the_largest_goes_first() -> None:
    queue = Queue(steps(*ROWS), lambda node, step: True, interleaved=True)
    alive = {"a", "b"}
    taken = [shown(queue.take(place(where), alive)) for where in ("a", "b", "a", "b", "a")]
    assert taken == [(64, "x"), (8, "x"), (64, "y"), (8, "y"), None]
    assert not list(queue.waiting)


def test_by_backend_they_go_one_by_one_in_their_order() -> None:
    queue = Queue(steps(*ROWS), lambda node, step: True, interleaved=False)
    assert [shown(queue.take(place(w), {"a", "b"})) for w in "abab"] == ROWS


def test_a_case_goes_where_it_can_run() -> None:
    queue = Queue(steps(*ROWS), lambda node, step: (node, step.row.backend) != ("a", "y"), interleaved=True)
    alive = {"a", "b"}
    assert [shown(queue.take(place("a"), alive)) for _ in range(3)] == [(64, "x"), (8, "x"), None]
    first = queue.take(place("b"), alive)
    assert first is not None
    queue.unable("b", first)  # its worker says so, and no declaration did
    queue.back(first)
    assert queue.take(place("b"), alive) is None
    assert [shown(step) for step in queue.waiting] == [(64, "y"), (8, "y")]


def test_no_row_goes_to_another_kind() -> None:
    queue = Queue(steps((8, "x")), lambda node, step: True, interleaved=True)
    assert queue.take(place("a", "other"), {"a"}) is None


def test_what_was_lost_goes_elsewhere_while_there_is_an_elsewhere() -> None:
    queue = Queue(steps((8, "x"), (8, "y")), lambda node, step: True, interleaved=True)
    step = queue.take(place("a"), {"a", "b"})
    assert step is not None
    assert queue.lost(step, "a") == ["a"]
    queue.release(place("a"))
    queue.back(step)
    assert shown(queue.take(place("a"), {"a", "b"})) == (8, "y")
    assert queue.take(place("a"), {"a", "b"}) is None
    assert queue.take(place("a"), {"a"}) is step  # b has gone
    assert queue.lost(step, "a") == ["a", "a"]


def test_every_step_is_given_out_once_whatever_is_lost() -> None:
    chance = random.Random(0)
    every = [
        s for kind in ("k", "l") for s in steps(*((n, b) for n in range(1, 40) for b in "xyz"), kind=kind)
    ]
    every = [Step(index=index, row=step.row, framework="numpy") for index, step in enumerate(every)]
    queue = Queue(every, lambda node, step: (node, step.row.backend) != ("a", "z"), interleaved=True)
    places = [place("a"), place("b"), place("c", "l"), place("d", "l")]
    alive = {"k": {"a", "b"}, "l": {"c", "d"}}
    done = []
    while list(queue.waiting):
        where = chance.choice(places)
        step = queue.take(where, alive[where.kind])
        if step is None:
            continue
        if chance.random() < 0.2:
            queue.lost(step, where.node)
            if chance.random() < 0.5:
                queue.release(where)
            queue.back(step)
        else:
            done.append(step.index)
    assert sorted(done) == list(range(len(every)))
