"""Whether two sides were measured on machines that are alike, and in what their software differs."""

from __future__ import annotations

from collections.abc import Mapping

from mtbench.compare.sides import Side
from mtbench.errors import BadInput

__all__ = ["alike", "differences", "refuse_unlike_machines", "software_differences"]


def alike(a: Side, b: Side) -> tuple[Side, Side]:
    """The two sides, and of a run of several kinds of machine against one of one machine the part that is of
    that machine, where there is just one."""
    if bool(a.parts) == bool(b.parts):
        return a, b
    pairs = [(one, other) for one in a.of_one_machine for other in b.of_one_machine]
    same = [(one, other) for one, other in pairs if not _differing(one.machine, other.machine)]
    return same[0] if len(same) == 1 else (a, b)


def differences(a: Side, b: Side) -> list[str]:
    """What differs between the machines, in words; what only one side knows counts as no difference."""
    return _differing(a.machine, b.machine)


def software_differences(a: Side, b: Side) -> list[str]:
    """What differs between the software: said, and never refused, since that is what one compares."""
    return _differing(a.software, b.software)


def refuse_unlike_machines(a: Side, b: Side) -> None:
    """Two machines differ in speed whatever the code does.

    Raises:
        BadInput: they differ.
    """
    if found := differences(a, b):
        raise BadInput(
            f"the machines differ ({'; '.join(found)}): a ratio would be theirs and not the code's; "
            "--across-machines compares all the same"
        )


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return [f"{name} {a[name]} and {b[name]}" for name in a if name in b and a[name] != b[name]]
