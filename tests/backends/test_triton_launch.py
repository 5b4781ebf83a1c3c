"""Which compiled kernel a launch starts, on a card that is not there (`tests/pretended_card.py`): the one
that Triton itself would find, and without asking Triton where it has been found before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtbench import load_backend
from tests.conftest import ROOT

pytestmark = pytest.mark.triton

Launches = dict[str, list[dict[str, Any]]]

FIRST = ("aligned", "q is not aligned", "another shape", "lengths")
"""Calls of short sequences that each are other kernels."""
AGAIN = {
    "aligned again": "aligned",
    "q is not aligned again": "q is not aligned",
    "aligned at last": "aligned",
    "other lengths": "lengths",
}
"""Calls whose kernels an earlier one has found."""


def run(*words: str) -> str:
    """What a program prints, in a process of its own: in this one the kernels may be loaded for the
    interpreter."""
    if reason := load_backend("triton").unavailable("cuda"):
        pytest.skip(reason)
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-W", "error", *words],
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def launches() -> Launches:
    """Those of `launches.py`, by what they are about."""
    by_name: Launches = {}
    for line in run(str(ROOT / "tests" / "backends" / "launches.py")).splitlines():
        one = json.loads(line)
        by_name.setdefault(one["about"], []).append(one)
    return by_name


def functions(launches: list[dict[str, Any]]) -> list[int]:
    """The compiled kernels that were started."""
    return [one["function"] for one in launches]


def bound(launches: list[dict[str, Any]]) -> list[str]:
    """The kernels that Triton had to be asked for."""
    return [one["kernel"] for one in launches if one["bound"]]


def test_what_is_started_is_what_triton_starts(launches: Launches) -> None:
    every = [one for some in launches.values() for one in some]
    assert len(every) == 88
    for one in every:
        assert one["alike"], one


def test_triton_is_asked_once(launches: Launches) -> None:
    first, again = launches["aligned"], launches["aligned again"]
    assert [one["kernel"] for one in first] == bound(first) == [
        *("states", "combine", "scan", "query_gradients", "states", "combine", "key_value_gradients"),
    ]  # fmt: skip
    assert not bound(again)
    assert functions(again) == functions(first)


def test_a_tensor_that_is_not_aligned(launches: Launches) -> None:
    """The kernels that q is an argument of are compiled anew; each way is kept."""
    aligned, other = functions(launches["aligned"]), functions(launches["q is not aligned"])
    assert bound(launches["q is not aligned"]) == ["scan", "query_gradients", "states", "key_value_gradients"]
    assert [a != b for a, b in zip(aligned, other, strict=True)] == [
        *(False, False, True, True, True, False, True),
    ]  # fmt: skip
    assert not bound(launches["q is not aligned again"])
    assert functions(launches["q is not aligned again"]) == other
    assert not bound(launches["aligned at last"])
    assert functions(launches["aligned at last"]) == aligned


def test_another_shape_and_lengths(launches: Launches) -> None:
    """A ragged end is other code; what sums states up is the same."""
    plain, ragged, lengths = (functions(launches[name]) for name in ("aligned", "another shape", "lengths"))
    assert [a == b for a, b in zip(plain, ragged, strict=True)] == [
        *(False, True, False, False, False, True, False),
    ]  # fmt: skip
    for other in (plain, ragged):
        for index in (0, 2, 3, 6):
            assert lengths[index] != other[index]
    assert not bound(launches["other lengths"])
    assert functions(launches["other lengths"]) == lengths


def test_short_sequences(launches: Launches) -> None:
    """The parallel form's kernels likewise; its backward is one launch, or one by queries and one by keys."""
    found = {name: launches[f"short, {name}"] for name in FIRST}
    back = "parallel_gradients"
    assert [bound(some) for some in found.values()] == [
        *(["parallel", back], ["parallel", back], ["parallel", back, back], ["parallel", back]),
    ]  # fmt: skip
    assert len({function for some in found.values() for function in functions(some)}) == 9
    for name, first in AGAIN.items():
        assert not bound(launches[f"short, {name}"])
        assert functions(launches[f"short, {name}"]) == functions(found[first])


def test_a_dtype_a_device_and_a_switch_of_triton_are_other_kernels(launches: Launches) -> None:
    ways = ("", " of float16", " with k not aligned", " on another device", " in debugging")
    every = [launches[f"token{way}"][0] for way in ways]
    assert len({one["function"] for one in every}) == len(ways)
    assert [one["device"] for one in every] == [0, 0, 0, 1, 0]
    for way in (" again", " on another stream", " on the first", " after debugging"):
        (one,) = launches[f"token{way}"]
        assert (one["function"], one["bound"]) == (every[0]["function"], 0)
    assert launches["token on another stream"][0]["stream"] == 7


def test_a_kernel_that_another_thread_compiles_is_kept(launches: Launches) -> None:
    """In Triton's AsyncCompileMode it is a promise of one that Triton returns."""
    (aside,) = launches["token compiled aside"]
    assert aside["bound"] == 0


def test_a_hook_into_the_compiler_is_asked_at_every_call(launches: Launches) -> None:
    """It says which kernel it would make, and may say another the next time."""
    names = ("token", "token of other stages", "token of other stages yet", "token of the first stages")
    found = [launches[name][0]["function"] for name in names]
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_triton_s_hooks_are_called(launches: Launches) -> None:
    """Those around a launch without asking Triton; one before `JITFunction.run` has that run."""
    (hooked,), (before,) = launches["token with hooks"], launches["token with a hook before run"]
    assert (hooked["hooked"], hooked["bound"]) == (["advance", "advance"], 0)
    assert (before["hooked"], before["bound"]) == (["before run"], 1)


def test_the_script_that_times_launches(tmp_path: Path) -> None:
    said = run(
        *(str(ROOT / "scripts" / "launch_overhead.py"), "--pretend", "--shape", "1,2,64,16"),
        *("--kind", "linear", "--calls", "3", "--out", str(tmp_path)),
    )  # fmt: skip
    rows = json.loads((tmp_path / "launch_overhead.json").read_text())
    assert [row["mode"] for row in rows] == ["forward", "forward_backward"]
    assert all(row[f"{way}_host_us"] > 0 for row in rows for way in ("by_triton", "start"))
    for row, line in zip(rows, said.splitlines()[1:], strict=True):
        assert line.startswith(f"{row['case']}:  host ")
