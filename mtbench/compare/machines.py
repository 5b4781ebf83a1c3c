"""Whether two sides were measured on machines that are alike, and in what their software differs."""

from __future__ import annotations

from collections.abc import Mapping

from mtbench.compare.sides import Side
from mtbench.errors import BadInput

__all__ = ["differences", "refuse_unlike_machines", "software_differences"]


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
