"""The executors, by name."""

from __future__ import annotations

from mtbench.errors import BadInput, nearest
from mtbench.sweep.executor import Executor
from mtbench.sweep.local import LocalExecutor

__all__ = ["EXECUTORS", "new_executor"]

EXECUTORS = ("local", "ray")
WAIT_S = 60.0
"""A machine that was started anew is there again by then."""


def new_executor(
    name: str, address: str | None = None, accelerator: str | None = None, wait_s: float | None = None
) -> Executor:
    """The executor of that name.

    Args:
        name: one of `EXECUTORS`.
        address: of a Ray cluster; None is the one that Ray finds here.
        accelerator: the type of GPU that a machine must have, as Ray names it.
        wait_s: how long rows that no machine of a cluster can run any more wait for one; None: `WAIT_S`.

    Raises:
        BadInput: the name is unknown, an option is not for it, Ray is not installed, or no cluster answers.
    """
    if name not in EXECUTORS:
        raise BadInput(f"--executor {name}: {nearest(name, EXECUTORS)}")
    if name == "ray":
        # Ray takes a second to import.
        from mtbench.sweep.ray_executor import RayExecutor

        if wait_s is not None and not wait_s >= 0:
            raise BadInput(f"--wait {wait_s}: must be 0 or more")
        return RayExecutor(address, accelerator, WAIT_S if wait_s is None else wait_s)
    for option, value in (("--address", address), ("--accelerator", accelerator), ("--wait", wait_s)):
        if value is not None:
            raise BadInput(f"{option} {value}: that is for --executor ray")
    return LocalExecutor()
