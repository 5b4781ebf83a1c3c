"""Whole arrays in files, of which each rank reads and writes its own positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.spec import Case

__all__ = ["OUTPUTS", "forget", "read_inputs", "room_for_outputs", "shapes", "write_inputs", "written"]

INPUTS = ("q", "k", "v", "do")
OUTPUTS = ("o", "dq", "dk", "dv")


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Of all arrays of a case."""
    b, h, g = case.batch, case.heads, case.kv_heads
    q = (b, h, case.seq_len, case.head_dim)
    k = (b, g, case.kv_len, case.head_dim)
    v = (b, g, case.kv_len, case.value_dim)
    o = (b, h, case.seq_len, case.value_dim)
    found: dict[str, tuple[int, ...]] = {"q": q, "k": k, "v": v, "o": o}
    if case.mode == "forward_backward":
        found |= {"do": o, "dq": q, "dk": k, "dv": v}
    return found


def write_inputs(folder: Path, case: Case, inputs: Inputs) -> None:
    """Put them there, for `read_inputs`."""
    for name in INPUTS:
        if name in shapes(case):
            np.ascontiguousarray(getattr(inputs, name)).tofile(folder / name)


def read_inputs(folder: Path, case: Case) -> Inputs:
    """Of what is not looked at nothing is read."""
    known = shapes(case)
    return Inputs(**{name: _mapped(folder / name, case, name, "r") for name in INPUTS if name in known})


def room_for_outputs(folder: Path, case: Case) -> None:
    """Make the files that the ranks write their parts into."""
    for name in OUTPUTS:
        if name in shapes(case):
            _mapped(folder / name, case, name, "w+")


def written(folder: Path, case: Case, mode: str = "r") -> dict[str, Array]:
    """The outputs; with mode ``r+`` they can be filled."""
    return {name: _mapped(folder / name, case, name, mode) for name in OUTPUTS if name in shapes(case)}


def forget(folder: Path) -> None:
    """Take the files away: a process that is killed leaves none behind."""
    for name in (*INPUTS, *OUTPUTS):
        (folder / name).unlink(missing_ok=True)


def _mapped(file: Path, case: Case, name: str, mode: str) -> Array:
    return np.memmap(file, NUMPY_DTYPES[case.dtype], mode, shape=shapes(case)[name])  # type: ignore[call-overload, no-any-return]
