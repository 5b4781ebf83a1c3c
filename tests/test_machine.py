"""A machine that was disturbed while the clocks ran says so."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import namedtuple
from typing import Any

import pytest

from mtbench.measure import machine
from mtbench.measure.environment import cpus
from mtbench.measure.machine import Watch, gpu_state, noise_reasons

scpufreq = namedtuple("scpufreq", ("current", "min", "max"))
GPU = {"sm_mhz": 1980, "power_w": 300.0, "throttle": []}


def gpu(**after: Any) -> dict[str, Any]:
    return {"seconds": 1.0, "others_cpu": 0.9, "gpu": {"before": GPU, "after": GPU | after}}


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        ({"seconds": 1.0, "others_cpu": 0.01}, []),
        ({"seconds": 1.0, "others_cpu": 0.5}, ["other processes took 50% of the CPUs"]),
        ({"seconds": 0.01, "others_cpu": 0.5}, []),
        ({"seconds": 1.0, "cpu_mhz": 2400.0, "cpu_max_mhz": 0.0}, []),
        ({"seconds": 1.0, "cpu_mhz": 1200.0, "cpu_max_mhz": 3600.0}, ["the CPU ran at 1200 of 3600 MHz"]),
        (gpu(), []),
        (gpu(throttle=["power cap"]), ["the GPU's clocks were held down: power cap"]),
        (gpu(sm_mhz=1200), ["the GPU's clock fell from 1980 to 1200 MHz"]),
        ({"seconds": 1.0, "gpu": {"before": None, "after": None}}, []),
        ({"seconds": 1.0, "gpu": {"before": GPU, "after": None}}, []),
    ],
)
def test_what_counts_as_noise(state: dict[str, Any], reasons: list[str]) -> None:
    assert noise_reasons(state) == reasons


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's CPU times")
def test_other_processes_are_seen() -> None:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cpus())]
    try:
        time.sleep(0.3)
        watch = Watch("cpu")
        time.sleep(1.0)
        state = watch.state()
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert state["others_cpu"] > 0.5
    assert noise_reasons(state)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's CPU times")
def test_who_works_for_one_is_no_other() -> None:
    """Two looks at the same second, of which one knows whose processes those are."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cpus())]
    try:
        time.sleep(0.3)
        all_others, none = Watch("cpu"), Watch("cpu", [burner.pid for burner in burners])
        time.sleep(1.0)
        told = all_others.state()["others_cpu"], none.state()["others_cpu"]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert told[1] < told[0] - 0.2


@pytest.mark.parametrize(
    ("mhz", "reasons"),
    [((3600.0, 800.0), []), ((1200.0, 800.0), ["the CPU ran at 1200 of 3600 MHz"])],
)
def test_idle_cpus_slow_nothing_down(
    mhz: tuple[float, float], reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One CPU works and the others are idle, and so slow: what they run at is no matter of the row's."""
    every = [scpufreq(mhz[0], 800.0, 3600.0), *[scpufreq(mhz[1], 800.0, 3600.0)] * 63]

    def cpu_freq(percpu: bool = False) -> Any:  # as psutil has it
        return every if percpu else scpufreq(sum(one.current for one in every) / 64, 800.0, 3600.0)

    monkeypatch.setattr(machine.psutil, "cpu_freq", cpu_freq)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "_busy_s", lambda: None)
    assert noise_reasons(Watch("cpu").state()) == reasons


def test_ones_own_work_is_not_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 CPU seconds that were spent in 2, 1 was this process's own."""
    readings = {"_busy_s": iter((10.0, 13.0)), "times": iter((5.0, 6.0)), "perf_counter": iter((0.0, 2.0))}
    monkeypatch.setattr(machine, "_busy_s", lambda: next(readings["_busy_s"]))
    monkeypatch.setattr(machine.os, "times", lambda: (next(readings["times"]), 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(readings["perf_counter"]))
    watch = Watch("cpu")
    assert watch.state()["others_cpu"] == pytest.approx((3.0 - 1.0) / 2.0 / cpus())


@pytest.mark.gpu
def test_a_gpu_tells_its_clocks() -> None:
    state = gpu_state()
    assert state is not None
    assert state["sm_mhz"] > 100
    assert state["power_w"] > 10
    assert isinstance(state["throttle"], list)
