"""Several cards over NCCL, through the processes that a sweep has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import Array, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.registry import load_backend
from mtbench.results import Run
from mtbench.spec import ATTENTIONS
from tests.conftest import ROOT

pytestmark = [pytest.mark.gpu, pytest.mark.torch]


@pytest.fixture(scope="module")
def _until_the_last() -> Iterator[None]:
    """The ranks stay from test to test: to start them anew takes longer than a test."""
    from mtbench.ranks.group import leave

    yield
    leave()


@pytest.mark.usefixtures("_until_the_last")
@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("form", ["fused", "chunked"])
def test_two_cards_agree_with_the_oracle(kind: str, form: str) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    backend = load_backend("torch-distributed")
    for causal in (True, False):
        for dtype in ("bfloat16", "float32"):
            spec = AttentionSpec(kind=kind, causal=causal, gamma=0.7)  # type: ignore[arg-type]
            sizes = {"heads": 3, "seq_len": 1999, "head_dim": 64, "world_size": 2}
            case = Case(
                spec=spec,
                dtype=dtype,
                device="cuda",
                mode="forward_backward",
                **sizes,  # type: ignore[arg-type]
            )
            inputs = make_inputs(case)
            judge = Judge(case, inputs)
            kernel = backend.build(case, form)
            kernel.load(judge.inputs)
            assert_agrees(judge, form, kernel.outputs(kernel()))
            for _ in range(2):
                assert kernel.sample_ms() > 0  # type: ignore[attr-defined]
                assert_agrees(judge, form, kernel.outputs(None))  # of what was timed
            other = Judge(case.replace(seed=1), make_inputs(case.replace(seed=1)))
            kernel.load(other.inputs)
            kernel.sample_ms()  # type: ignore[attr-defined]
            assert_agrees(other, form, kernel.outputs(None))


def assert_agrees(judge: Judge, form: str, outputs: Mapping[str, Array]) -> None:
    assert judge.contract_problem(outputs) is None
    for name, agreement in judge.agreement(form, outputs).items():
        assert agreement.passes, f"{name} of {judge.case.id}: {agreement}"


def test_jax_over_two_cards(tmp_path: Path) -> None:
    """By a run of its own: in the process of the tests JAX would take most of both cards' memory."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    words = (
        "run --backend jax-distributed --world-size 2 --seq-len 4096 --heads 2 --device cuda --dtype bfloat16"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mtbench", *words.split(), "--out", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = list(Run.load(tmp_path / "run"))
    assert {row.case.spec.kind for row in rows} == set(ATTENTIONS)
    for row in rows:
        assert row.status == "ok", (row.reason, done.stderr[-2000:])
        assert row.device_ms is None  # it is of one device
