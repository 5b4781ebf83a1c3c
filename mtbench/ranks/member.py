"""What a rank is to whoever measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mtbench.inputs import Array, Inputs
from mtbench.spec import Case

__all__ = ["Member", "SpreadBackend"]


class Member(Protocol):
    """One rank's part of one case. What it does all ranks do at the same time, or it waits for them."""

    layout: str
    """See `mtbench.backend.Kernel`."""
    pieces: tuple[tuple[int, int], ...]
    """The positions that it has: from the first of each on, up to and without the second."""
    config: Mapping[str, Any]
    """See `mtbench.backend.Kernel`."""

    def load(self, inputs: Inputs) -> None:
        """Copy what it needs of the whole arrays to its device. Never timed."""

    def __call__(self) -> Any:
        """Start the work, and return a handle of its results."""

    def repeated(self) -> Callable[[], Any]:
        """A call, to be timed: of the inputs that it has now, into outputs that the next one may write over.
        What that needs to be made ready is done here, by all ranks at the same time."""

    def wait(self, result: Any) -> None:
        """Return when this rank's outputs are computed."""

    def outputs(self, result: Any) -> Mapping[str, list[Array]]:
        """``o``, and in mode forward_backward ``dq``, ``dk`` and ``dv``: an array [batch, heads, positions,
        dim] for each piece."""

    def barrier(self) -> None:
        """Return when all ranks are here and their devices idle."""

    def metered(self) -> tuple[int, float]:
        """Of one more call: the bytes that this rank sent, and the milliseconds that its work stood still for
        what others sent."""


class SpreadBackend(Protocol):
    """A backend whose cases may have a world_size above 1."""

    spreads: bool
    """True."""

    def join(self, device: str, rank: int, ranks: int, rendezvous: str) -> None:
        """In a process of its own: become one of so many, who meet by a file of that name."""

    def member(self, case: Case, form: str) -> Member:
        """This rank's part of a case, in a process that has joined."""
