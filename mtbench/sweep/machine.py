"""A kind of machine, as a sweep sees it: what its rows may be compared on, and what can run there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtbench.backend import Backend
from mtbench.measure.environment import device_problem, environment
from mtbench.spec import DEVICES, Device

__all__ = ["SAME_MACHINE", "Machine", "Unavailable", "this_machine"]

SAME_MACHINE = ("os", "cpu", "gpus", "python", "packages", "threads")
"""Of the environment, what must be the same for two rows to be compared."""

Unavailable = Mapping[str, Mapping[Device, str | None]]
"""By backend, as it was asked for: why it cannot run on a device, or None."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind."""

    environment: Mapping[str, Any]
    """`mtbench.measure.environment.environment` of it."""
    devices: Mapping[Device, str | None]
    """Why it has not a device, or None."""
    unavailable: Unavailable
    label: str = ""
    """The name that its user gave to the kind; empty where it is told by its hardware alone."""
    nodes: Sequence[Mapping[str, Any]] = ()
    """The machines of this kind, for the record; none where there is one alone."""

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "environment": dict(self.environment),
            "devices": dict(self.devices),
            "unavailable": {backend: dict(why) for backend, why in self.unavailable.items()},
            "label": self.label,
            "nodes": [dict(node) for node in self.nodes],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Machine:
        """What `to_dict` made."""
        keys = ("environment", "devices", "unavailable", "label", "nodes")
        return cls(**{key: found[key] for key in keys})


def this_machine(backends: Mapping[str, Backend], *, threads: int, host: bool) -> Machine:
    """This one, for backends by the names they were asked for."""
    return Machine(
        environment=environment(threads=threads, host=host),
        devices={device: device_problem(device) for device in DEVICES},
        unavailable={
            asked: {device: backend.unavailable(device) for device in DEVICES}
            for asked, backend in backends.items()
        },
    )
