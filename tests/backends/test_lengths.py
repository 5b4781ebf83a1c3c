"""Lengths that a kernel is given at its call, against the float64 oracle, which has them in its case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtbench import AttentionSpec, BadInput, Case
from mtbench.backend import Applicable
from mtbench.frameworks.torch import to_numpy, to_tensor
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge
from mtbench.registry import load_backend
from mtbench.spec import ATTENTIONS

pytestmark = pytest.mark.torch

KV_LEN, BATCH = 90, 2
SIDES = {"causal": (True, KV_LEN), "full": (False, KV_LEN), "cross": (False, 37)}
"""Whether it is causal, and how many queries there are."""


def padded(kind: str, side: str, **changes: Any) -> Case:
    causal, seq_len = SIDES[side]
    return Case(
        spec=AttentionSpec(kind=kind, causal=causal, beta=0.9, gamma=0.7),  # type: ignore[arg-type]
        batch=BATCH,
        heads=1,
        seq_len=seq_len,
        kv_len=KV_LEN,
        lengths=(KV_LEN,) * BATCH,
        head_dim=11,
        value_dim=7,
        mode="forward_backward",
    ).replace(**changes)


def drawn(seed: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.random.default_rng(seed).integers(1, KV_LEN + 1, BATCH))


def built(backend: str, form: str, case: Case) -> Applicable:
    kernel = load_backend(backend).build(case, form)
    assert isinstance(kernel, Applicable)
    return kernel


def check_at_call(kernel: Applicable, form: str, case: Case, lengths: tuple[int, ...], dtype: Any) -> None:
    case = case.replace(lengths=lengths)
    inputs = make_inputs(case)
    judge = Judge(case, inputs)
    assert inputs.do is not None
    qkv = [to_tensor(x, case.device).requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    o = kernel.apply(*qkv, torch.tensor(lengths, dtype=dtype, device=case.device))
    found = (o, *torch.autograd.grad(o, qkv, to_tensor(inputs.do, case.device)))
    outputs = {name: to_numpy(x) for name, x in zip(("o", "dq", "dk", "dv"), found, strict=True)}
    for array, agreement in judge.agreement(form, outputs).items():
        assert agreement.passes, f"{array} of {case.id}: {agreement}"


ROWS = [
    *(
        pytest.param("torch-eager", form, kind, side)
        for kind in ATTENTIONS
        for form in load_backend("torch-eager").forms(kind)
        for side in SIDES
    ),
    *(
        pytest.param("triton", "fused", kind, side, marks=pytest.mark.triton)
        for kind in ATTENTIONS
        for side in SIDES
    ),
    pytest.param("torch-compile", "chunked", "momentum", "cross"),
]


@pytest.mark.parametrize(("backend", "form", "kind", "side"), ROWS)
def test_one_kernel_does_every_batchs_lengths(backend: str, form: str, kind: str, side: str) -> None:
    case = padded(kind, side)
    kernel = built(backend, form, case)
    # Other integers would have torch.compile compile anew, which takes seconds.
    for seed, dtype in ((0, torch.int32), (1, torch.int64 if backend == "torch-eager" else torch.int32)):
        check_at_call(kernel, form, case, drawn(seed), dtype)


@pytest.mark.triton
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_lengths_may_lie_in_any_stride(kind: str) -> None:
    """A column of a table, and one number for all: a kernel reads one after another."""
    case = padded(kind, "full", mode="forward")
    kernel = built("triton", "fused", case)
    inputs = make_inputs(case)
    qkv = [to_tensor(x, case.device) for x in (inputs.q, inputs.k, inputs.v)]
    table = torch.tensor([[7, 80], [20, 90]], dtype=torch.int32)
    for lengths in (table[:, 0], table[0, :1].expand(BATCH)):
        assert not lengths.is_contiguous()
        assert torch.equal(kernel.apply(*qkv, lengths), kernel.apply(*qkv, lengths.contiguous()))


@pytest.mark.triton
def test_lengths_that_change_before_the_backward_are_an_error() -> None:
    """As q, k and v that do: the gradients would be of another function."""
    case = padded("momentum", "full")
    kernel = built("triton", "fused", case)
    inputs = make_inputs(case)
    qkv = [to_tensor(x, case.device).requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    lengths = torch.tensor(drawn(0), dtype=torch.int32)
    o = kernel.apply(*qkv, lengths)
    lengths.fill_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        o.sum().backward()


def test_where_a_kernel_has_none_none_can_be_given() -> None:
    kernel = built("torch-eager", "parallel", padded("linear", "full", lengths=None))
    with pytest.raises(BadInput, match="without lengths, or of fixed ones"):
        kernel.apply(*(torch.zeros(BATCH, 1, KV_LEN, 11),) * 3, torch.ones(BATCH))


@pytest.mark.gpu
@pytest.mark.parametrize(("backend", "form"), [("torch-eager", None), ("triton", "fused")])
@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("side", SIDES)
def test_a_captured_call_follows_the_lengths(backend: str, form: str | None, kind: str, side: str) -> None:
    """A graph is replayed with other numbers in the same tensor of lengths, forward and back."""
    case = padded(kind, side, device="cuda", head_dim=64, value_dim=64)
    form = form or load_backend(backend).forms(kind)[0]
    kernel = built(backend, form, case)
    inputs = make_inputs(case)
    assert inputs.do is not None
    qkv = [to_tensor(x, "cuda").requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    do = to_tensor(inputs.do, "cuda")
    lengths = torch.tensor(drawn(0), dtype=torch.int32, device="cuda")

    def call() -> tuple[torch.Tensor, ...]:
        o = kernel.apply(*qkv, lengths)
        return (o, *torch.autograd.grad(o, qkv, do))

    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    for seed in (1, 2):
        lengths.copy_(torch.tensor(drawn(seed)))
        graph.replay()
        judge = Judge(case.replace(lengths=drawn(seed)), inputs)
        outputs = {name: to_numpy(x) for name, x in zip(("o", "dq", "dk", "dv"), found, strict=True)}
        for array, agreement in judge.agreement(form, outputs).items():
            assert agreement.passes, f"{array} of {case.id}, replayed: {agreement}"
