"""A sequence over the devices of a simulated CPU, by JAX, against the float64 oracle."""

from __future__ import annotations

import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge
from mtbench.registry import load_backend

from ..processes import in_a_fresh_process

pytestmark = pytest.mark.jax

CASES = (
    # attention, causal, devices, dtype
    ("momentum", True, 3, "bfloat16"),
    ("momentum", False, 2, "float32"),
    ("linear", True, 4, "float32"),
    ("softmax", True, 3, "float32"),
)


def check_all() -> None:
    """In one process: the devices are counted when JAX starts."""
    backend = load_backend("jax-distributed")
    for kind, causal, devices, dtype in CASES:
        spec = AttentionSpec(kind=kind, causal=causal, gamma=0.7)  # type: ignore[arg-type]
        sizes = {"heads": 2, "seq_len": 300, "head_dim": 7, "value_dim": 5, "world_size": devices}
        case = Case(spec=spec, dtype=dtype, mode="forward_backward", **sizes)  # type: ignore[arg-type]
        assert backend.unsupported(case, "chunked") is None
        inputs = make_inputs(case)
        kernel = backend.build(case, "chunked")
        kernel.load(inputs)
        result = kernel()
        kernel.wait(result)
        assert {len(array.sharding.device_set) for array in result} == {devices}
        for name, agreement in Judge(case, inputs).agreement("chunked", kernel.outputs(result)).items():
            assert agreement.passes, f"{name} of {case.id}: {agreement}"


def test_a_sequence_over_a_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = load_backend("jax-distributed").environment  # type: ignore[attr-defined]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    in_a_fresh_process(check_all)


def test_what_shard_map_cannot_do_is_declared() -> None:
    backend = load_backend("jax-distributed")
    for case, what in (
        (Case(seq_len=10, world_size=3), "seq_len that world_size does not divide"),
        (Case(seq_len=90, world_size=9), "more than 8 devices of a CPU"),
        (Case(dtype="float16"), "linear and momentum attention in float16"),
    ):
        limit = backend.unsupported(case, "chunked")
        assert limit is not None
        assert what in limit.reason
