"""Memory over the time of a call: what was in use, and what set the peak."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench.profile.memory import course, resident_course
from mtbench.spec import Case
from tests.processes import in_a_fresh_process

MIB = 1 << 20


def test_the_history_of_torchs_allocator(recorded: Path) -> None:
    told = course({"history": json.loads((recorded / "history.json").read_text())})
    assert told is not None
    assert told.peak_bytes == 96 * MIB
    assert [size // MIB for _, size in told.points] == [0, 64, 96, 32, 48, 16]
    assert told.points[-1][0] == pytest.approx(0.149)  # ms since the first
    setter, other = told.at_peak
    assert (setter.bytes, other.bytes) == (
        32 * MIB,
        64 * MIB,
    )  # the one that set it, then what else was there
    assert setter.what == "weights (torch_forms/softmax.py:28)"
    assert setter.stack == ("weights (torch_forms/softmax.py:28)",)  # neither torch's frames nor ours


def test_nothing_recorded_is_nothing_told() -> None:
    assert course({"history": []}) is None
    assert course({}) is None


def check_events() -> None:
    import torch

    from mtbench.frameworks import load_framework
    from mtbench.frameworks.profiling import load_profiler
    from mtbench.inputs import make_inputs

    framework, profiler = load_framework("torch"), load_profiler("torch")
    assert profiler is not None

    def function(q: Any, k: Any, v: Any) -> Any:
        wide = torch.cat([q] * 16, dim=-1)  # 16 of q
        both = torch.cat([wide, wide], dim=-1)  # 32 more, which sets the peak at 48
        del wide
        return both.sum(-1, keepdim=True) * q

    case = Case(heads=1, seq_len=1024, head_dim=64)
    kernel = framework.kernel(function, case)
    kernel.load(make_inputs(case))
    kernel.wait(kernel())
    told = course(profiler.memory(kernel, "cpu", Path()) or {})
    assert told is not None
    q = 1024 * 64 * 4
    assert told.peak_bytes == 48 * q
    assert [block.bytes for block in told.at_peak] == [32 * q, 16 * q]
    assert told.at_peak[0].what == "aten::cat"
    assert "test_memory.py" in told.at_peak[0].stack[0]


@pytest.mark.torch
def test_the_events_of_torchs_profiler() -> None:
    in_a_fresh_process(check_events)


class Filling:
    """A kernel that holds so much for a while."""

    layout, untimed, config = "bhnd", None, {}

    def __call__(self) -> Any:
        import time

        held = np.ones(64 * MIB, np.uint8)
        time.sleep(0.01)
        return held[0]

    def wait(self, result: Any) -> None: ...


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says it in /proc")
def test_the_resident_set_rises_and_falls() -> None:
    told = resident_course(Filling())  # type: ignore[arg-type]
    assert told is not None
    assert 60 * MIB < told.peak_bytes < 80 * MIB
    assert told.points[-1][1] < 20 * MIB  # given back at the end
    high = [size > 50 * MIB for _, size in told.points]
    assert sum(a != b for a, b in itertools.pairwise(high)) >= 4  # several calls, one after another
