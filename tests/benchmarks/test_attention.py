"""pytest-benchmark over the suite's own cases: the same kernels, waited for inside the timed call."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mtbench import Case
from mtbench.backend import Kernel
from mtbench.frameworks import load_framework
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge
from mtbench.measure.environment import cpus
from mtbench.registry import load_backend
from mtbench.sweep.plan import plan_rows
from mtbench.workloads import PRESETS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name, device = metafunc.config.getoption("backend"), metafunc.config.getoption("device")
    backend = load_backend(name)
    if reason := backend.unavailable(device):
        raise pytest.UsageError(f"backend {name} cannot run on {device} here: {reason}")
    found = [
        pytest.param(row.case, row.form, id=f"{row.form}-{row.case.id}")
        for row in plan_rows(PRESETS["quick"].override(device=(device,)), {name: backend})
        if row.decided is None
    ]
    metafunc.parametrize(("case", "form"), found)


def test_attention(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, case: Case, form: str
) -> None:
    backend = load_backend(request.config.getoption("backend"))
    framework = load_framework(backend.framework)
    framework.start(case.device, cpus())
    judge = Judge(case, make_inputs(case))
    kernel = backend.build(case, form)
    kernel.load(judge.inputs)
    outputs = kernel.outputs(kernel())
    # A wrong kernel has no speed.
    assert all(a.passes for a in judge.agreement(form, outputs).values())
    benchmark.group = case.id
    benchmark.extra_info.update(backend=backend.name, form=form, attention=case.spec.kind)
    benchmark(call, kernel)


def call(kernel: Kernel) -> None:
    kernel.wait(kernel())
