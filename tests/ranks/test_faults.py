"""Ranks that die or hang, in a real run: a row with a reason, and no process left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from mtbench import Case
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement, Run
from tests.conftest import ROOT

pytestmark = pytest.mark.torch

PATIENCE_S = 90.0
TIMEOUT_S = 20
Found = TypeVar("Found")


def within(seconds: float, look: Callable[[], Found | None]) -> Found:
    """What it finds in the end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing after {seconds} s")


def ranks_of(run: psutil.Process) -> dict[int, psutil.Process]:
    """The rank processes that it has now."""
    found = {}
    for child in run.children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if "mtbench.ranks.process" in words:
            found[int(words[words.index("mtbench.ranks.process") + 5])] = child
    return found


def alive(process: psutil.Process) -> bool:
    """Not ended; whether who inherited it has looked is not our doing."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_rank_that_dies_and_one_that_stops_end_their_rows(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = (
        "run --backend torch-distributed --form chunked --world-size 2 --seq-len 256 --heads 2 --by-backend"
    )
    started = subprocess.Popen(
        [sys.executable, "-m", "mtbench", *words.split(), "--timeout", str(TIMEOUT_S), "--out", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run, seen = psutil.Process(started.pid), dict[int, psutil.Process]()

    def all_there() -> dict[int, psutil.Process] | None:
        found = {rank: one for rank, one in ranks_of(run).items() if one.pid not in seen}
        return found if len(found) == 2 else None

    def rows() -> list[dict[str, object]]:
        file = folder / "measurements.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    try:
        for place, (rank, what) in enumerate(((1, signal.SIGKILL), (0, signal.SIGSTOP))):
            there = within(PATIENCE_S, all_there)
            seen |= {one.pid: one for one in there.values()}
            there[rank].send_signal(what)
            within(PATIENCE_S, lambda wanted=place + 1: len(rows()) >= wanted)  # type: ignore[misc]
        seen |= {one.pid: one for one in within(PATIENCE_S, all_there).values()}
        _, told = started.communicate(timeout=PATIENCE_S)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 1, told
    killed, stopped, fine = Run.load(folder)
    assert killed.status == "crash"
    assert "rank 1 of 2" in killed.reason
    assert "killed by SIGKILL" in killed.reason
    assert stopped.status == "timeout"
    assert f"not done after {TIMEOUT_S} s, at: " in stopped.reason
    assert sum(stopped.stage_s.values()) <= TIMEOUT_S
    assert fine.status == "ok"
    assert fine.exchange["sent_bytes"] > 0
    assert len(fine.exchange["peak_memory_bytes"]) == 2
    assert len(seen) == 6
    within(10, lambda: not any(alive(one) for one in seen.values()))


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtbench.ranks import group
    from mtbench.sweep.child import Ended

    group.check_devices(Case(world_size=64), 0)
    monkeypatch.setattr(group, "device_problem", lambda device: None)
    group.check_devices(Case(world_size=2, device="cuda"), 2)
    with pytest.raises(Ended) as end:
        group.check_devices(Case(world_size=4, device="cuda"), 2)
    assert end.value.status == "unavailable"
    assert end.value.reason == "world_size 4 needs as many GPUs, and this machine has 2"


def test_a_profile_is_of_one_device() -> None:
    from mtbench.profile.target import refusal

    row = Measurement(
        case=Case(world_size=2),
        backend="torch-distributed",
        form="chunked",
        status="ok",
        wall_ms=Samples([1.0]),
    )
    assert refusal(row) == "it is over 2 devices, and a profile is of one"
    assert not refusal(replace(row, case=Case()))
