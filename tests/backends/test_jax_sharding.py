"""JAX's functions with batch and heads spread over the devices of a mesh: eight of a simulated CPU."""

from __future__ import annotations

import importlib
import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge

from ..processes import in_a_fresh_process

pytestmark = pytest.mark.jax

DEVICES = 8
FORMS = (
    *((kind, form) for kind in ("linear", "momentum") for form in ("parallel", "chunked", "recurrent")),
    *(("softmax", form) for form in ("parallel", "chunked", "xla")),
)
COLLECTIVES = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\b")


def the_case(kind: str, batch: int = 4, heads: int = 4) -> Case:
    """300 positions: not a whole number of chunks, nor of softmax's blocks."""
    spec = AttentionSpec(kind=kind)  # type: ignore[arg-type]
    sizes = {"batch": batch, "heads": heads, "seq_len": 300, "head_dim": 16}
    return Case(spec=spec, mode="forward_backward", **sizes)  # type: ignore[arg-type]


def the_function(case: Case, form: str) -> Any:
    """``o(q, k, v)``, [batch, heads, positions, dim]."""
    if case.spec.kind == "softmax":
        module = importlib.import_module("backends.jax.softmax")
    else:
        module = importlib.import_module(f"backends.jax.{'chunked' if form == 'chunked' else 'linear'}")
    function = partial(getattr(module, form), case=case)
    if form != "xla":
        return function

    def transposed(*arrays: Any) -> Any:  # jax.nn has the heads after the positions
        return function(*(x.swapaxes(1, 2) for x in arrays)).swapaxes(1, 2)

    return transposed


def with_gradients(function: Any) -> Any:
    """``(o, dq, dk, dv)`` of (q, k, v, do)."""
    import jax

    def program(q: Any, k: Any, v: Any, do: Any) -> Any:
        o, pull = jax.vjp(function, q, k, v)
        return o, *pull(do)

    return program


def on_a_mesh(case: Case) -> tuple[Any, Any, list[Any]]:
    """The mesh, how batch and heads lie on it, and q, k, v, do there."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.devices("cpu")
    assert len(devices) == DEVICES
    mesh = Mesh(np.array(devices).reshape(2, 4), ("data", "model"))
    lie = PartitionSpec("data", "model")
    inputs = make_inputs(case)
    arrays = (inputs.q, inputs.k, inputs.v, inputs.do)
    return mesh, lie, [jax.device_put(x, NamedSharding(mesh, lie)) for x in arrays]


def assert_right(case: Case, form: str, found: Any) -> None:
    """o, dq, dk and dv against the oracle's."""
    outputs = dict(zip(("o", "dq", "dk", "dv"), map(np.asarray, found), strict=True))
    for name, agreement in Judge(case, make_inputs(case)).agreement(form, outputs).items():
        assert agreement.passes, f"{case.spec.kind} {form} {name}: {agreement}"


def check_jit(kind: str, form: str) -> None:
    """Under jit every device does its own part: no collective, and the results lie as the inputs do."""
    import jax

    case = the_case(kind)
    mesh, lie, arrays = on_a_mesh(case)
    compiled = jax.jit(with_gradients(the_function(case, form))).lower(*arrays).compile()
    assert not COLLECTIVES.findall(compiled.as_text())
    found = compiled(*arrays)
    for array in found:
        assert array.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, lie), array.ndim)
    assert_right(case, form, found)


def check_shard_map(kind: str) -> None:
    """A Pallas kernel is not XLA's to part: the caller does, and each device has a smaller case."""
    import jax

    case = the_case(kind)
    mesh, lie, arrays = on_a_mesh(case)
    own = case.replace(batch=case.batch // 2, heads=case.heads // 4)
    plan = importlib.import_module("backends.pallas.plan").make_plan(own)
    kernels = importlib.import_module("backends.pallas.attention").attention_of(plan)
    program = with_gradients(kernels)
    parted = jax.shard_map(program, mesh=mesh, in_specs=(lie,) * 4, out_specs=(lie,) * 4, check_vma=False)
    assert_right(case, "fused", jax.jit(parted)(*arrays))


def check_vmap(kind: str, form: str) -> None:
    """With vmap over the batch, which lies on the whole mesh."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    case = the_case(kind, batch=DEVICES, heads=2)
    one = the_function(case.replace(batch=1), form)
    program = jax.vmap(with_gradients(lambda *x: one(*(y[None] for y in x))[0]))
    mesh = Mesh(np.array(jax.devices("cpu")), ("data",))
    inputs = make_inputs(case)
    lie = NamedSharding(mesh, PartitionSpec("data"))
    arrays = [jax.device_put(x, lie) for x in (inputs.q, inputs.k, inputs.v, inputs.do)]
    compiled = jax.jit(program).lower(*arrays).compile()
    assert not COLLECTIVES.findall(compiled.as_text())
    assert_right(case, form, compiled(*arrays))


def check_all() -> None:
    """All of them in one process: the devices are counted when JAX starts."""
    for kind, form in FORMS:
        check_jit(kind, form)
        check_vmap(kind, form)
    for kind in ("softmax", "linear", "momentum"):
        check_shard_map(kind)


def test_batch_and_heads_over_a_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={DEVICES}")
    in_a_fresh_process(check_all)
