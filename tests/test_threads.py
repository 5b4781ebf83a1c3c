"""A framework on a CPU has the threads that it is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mtbench.frameworks import load_framework
from mtbench.measure.environment import cpus
from tests.processes import in_a_fresh_process


def check_xla(flags: str, wanted: int) -> None:
    os.environ["XLA_FLAGS"] = flags
    load_framework("jax").start("cpu", 1)
    import jax.numpy as jnp

    (jnp.ones((64, 64)) @ jnp.ones((64, 64))).block_until_ready()
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    assert names.count("tf_XLAEigen") == wanted, names
    assert len(os.sched_getaffinity(0)) == wanted


@pytest.mark.jax
@pytest.mark.skipif(sys.platform != "linux", reason="no other system can be told which CPUs to use")
@pytest.mark.parametrize(("flags", "most"), [("", 1), ("--xla_force_host_platform_device_count=2", 2)])
def test_xla_has_those_for_each_device_that_it_simulates(flags: str, most: int) -> None:
    in_a_fresh_process(check_xla, flags, min(most, cpus()))
