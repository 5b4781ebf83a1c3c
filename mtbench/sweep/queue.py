"""Which step goes to which machine next: logic alone, without an engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from mtbench.floor import floor_bytes
from mtbench.sweep.executor import Step

__all__ = ["Place", "Queue"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one step is measured at a time."""

    key: Hashable
    """No other place has it."""
    node: str
    kind: str


@dataclass(eq=False)
class _Group:
    """The steps of one case on one kind of machine; or one step, where rows are not interleaved."""

    kind: str
    steps: list[Step] = field(default_factory=list)


class Queue:
    """The steps that wait.

    Interleaved, all rows of a case are measured at one place, one after another, where it can run them: what
    differs between two nodes of a kind then falls on all backends of a case alike. The largest cases go
    first, so that none is left for the end, when all other places are idle. Otherwise rows go one by one.

    Args:
        steps: all that will be measured.
        able: whether a node can run a step, for all that was known of it before.
        interleaved: see above.
    """

    def __init__(
        self, steps: Sequence[Step], able: Callable[[str, Step], bool], *, interleaved: bool
    ) -> None:
        self._able = able
        groups: dict[Hashable, _Group] = {}
        for step in steps:
            kind = step.row.hardware
            key = (kind, step.row.case.id) if interleaved else step.index
            groups.setdefault(key, _Group(kind)).steps.append(step)
        ordered = list(groups.values())
        if interleaved:
            ordered.sort(key=lambda group: -floor_bytes(group.steps[0].row.case))
        self._groups = deque(ordered)
        self._held: dict[Hashable, deque[Step]] = {}
        self._unable: set[tuple[str, str, str]] = set()
        self._lost_on: dict[int, list[str]] = {}

    def unable(self, node: str, step: Step) -> None:
        """That node turned out not to run that step's backend on its device."""
        self._unable.add((node, step.row.asked, step.row.case.device))

    def may(self, node: str, step: Step) -> bool:
        """Whether the node can run it, for all that is known."""
        return self._able(node, step) and (node, step.row.asked, step.row.case.device) not in self._unable

    def take(self, place: Place, alive: Collection[str]) -> Step | None:
        """The next step for a place; None: there is none for it now. `alive` are all nodes of its kind that
        can measure: a step does not go back to where it was lost while there is another."""
        held = self._held.get(place.key)
        while held:
            step = held.popleft()
            if self._for(place, step, alive):
                return step
            self._groups.appendleft(_Group(place.kind, [step]))
        for group in self._groups:
            if group.kind != place.kind:
                continue
            mine = [step for step in group.steps if self._for(place, step, alive)]
            if mine:
                group.steps = [step for step in group.steps if step not in mine]
                if not group.steps:
                    self._groups.remove(group)
                self._held[place.key] = deque(mine[1:])
                return mine[0]
        return None

    def _for(self, place: Place, step: Step, alive: Collection[str]) -> bool:
        if not self.may(place.node, step):
            return False
        lost_on = self._lost_on.get(step.index, [])
        able = [node for node in alive if self.may(node, step)]
        return place.node not in lost_on or all(node in lost_on for node in able)

    def back(self, step: Step) -> None:
        """It is to be measured again, before all others."""
        self._groups.appendleft(_Group(step.row.hardware, [step]))

    def lost(self, step: Step, node: str) -> list[str]:
        """It was lost there; the nodes it was lost on by now, in order."""
        self._lost_on.setdefault(step.index, []).append(node)
        return list(self._lost_on[step.index])

    def release(self, place: Place) -> None:
        """The place is gone: what it held waits again."""
        if held := self._held.pop(place.key, None):
            self._groups.appendleft(_Group(place.kind, list(held)))

    @property
    def waiting(self) -> Iterable[Step]:
        """All steps that no place has begun."""
        yield from (step for group in self._groups for step in group.steps)
        yield from (step for held in self._held.values() for step in held)
