"""Products at padded sizes: what they give, and their gradients, are those of the sizes themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mtbench.training.tasks import load_task
from mtbench.transformer import linear
from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.held import held, in_bfloat16
from mtbench.transformer.linear import Linear, multiplied
from mtbench.transformer.plain import plain_attention

pytestmark = pytest.mark.torch

SIZE = ModelSize(
    vocabulary=23, max_len=9, d_model=10, layers=2, heads=2, head_dim=5, feed_forward=13, dropout=0
)
"""None of them a multiple of 8."""
LENGTHS = torch.tensor([7, 3, 1])


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.dtype], None]:
    """Has a CPU pad products of a precision."""
    return lambda dtype: monkeypatch.setitem(linear.ALIGNED, ("cpu", dtype), 8)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated is full of NaN: an element that nothing writes shows."""
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *of, **how: plain(*of, **how).fill_(float("nan")))


def learnt(name: str, variant: str, dtype: torch.dtype, around: Any = None) -> tuple[torch.Tensor, ...]:
    """The loss of a translation, and the gradient of every parameter."""
    torch.manual_seed(0)
    attention, _, connection = variant.partition("+")
    config = ModelConfig(size=SIZE, attention=attention, connection=connection or "none")
    task = load_task(name)
    model = task.model(config, plain_attention).to(dtype)
    source, target = torch.randint(3, SIZE.vocabulary, (2, 3, 7))
    batch = {"source": source, "source_lengths": LENGTHS, "target": target, "target_lengths": LENGTHS.flip(0)}
    with around(model) if around else contextlib.nullcontext():
        loss, _ = task.loss(model, batch)
    loss.backward()
    return loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("variant", ["softmax", "momentum+adaptive", "momentum-released+momentum"])
@pytest.mark.parametrize("name", ["translation", "translation-refined"])
def test_padded_products_learn_the_same(
    name: str,
    variant: str,
    holds: bool,
    forced: Callable[[torch.dtype], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where they are held, no layer makes rows of its own."""
    plain = learnt(name, variant, torch.float64)
    forced(torch.float64)
    around = None
    if holds:
        around = lambda model: held(model, "cpu", torch.float64)  # noqa: E731
        monkeypatch.delattr(Linear, "rows")
    padded = learnt(name, variant, torch.float64, around)
    assert len(padded) == len(plain)
    for one, other in zip(padded, plain, strict=True):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_under_autocast_as_without(forced: Callable[[torch.dtype], None]) -> None:
    """To the rounding of bfloat16, 8 bits: of the whole gradient, and not of each number."""
    plain = learnt("translation", "linear", torch.float32, lambda model: in_bfloat16(model, "cpu"))
    forced(torch.bfloat16)
    padded = learnt("translation", "linear", torch.float32, lambda model: in_bfloat16(model, "cpu"))
    for one, other in zip(padded, plain, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) <= 2e-2 * float(other.norm()) + 1e-4


@pytest.mark.parametrize(("sizes", "inner"), [((5, 5, 5), 10), ((16,), 10), ((5,), 16), ((8, 3), 7)])
def test_every_mixture_of_sizes(sizes: tuple[int, ...], inner: int, forced: Callable[..., None]) -> None:
    torch.manual_seed(0)
    layers = [Linear(inner, size).double() for size in sizes]
    x = torch.randn(2, 3, inner, dtype=torch.float64, requires_grad=True)
    found = []
    for padded in (False, True):
        if padded:
            forced(torch.float64)
        parts = multiplied(x, *layers)
        assert [part.shape for part in parts] == [(2, 3, size) for size in sizes]
        loss = sum((part.sin() * (at + 1)).sum() for at, part in enumerate(parts))
        inputs = [x, *(p for layer in layers for p in layer.parameters())]
        found.append([*parts, *torch.autograd.grad(loss, inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "products"), [(4, 3), (64, 1)])
def test_a_decoders_token_copies_no_weights(rows: int, products: int) -> None:
    """Of more rows than the weights have, one product is worth the copy."""
    torch.manual_seed(0)
    layers = [Linear(10, size) for size in (6, 8, 10)]
    x = torch.randn(rows, 10)
    one = multiplied(x, *layers)  # for its gradient
    with profile(activities=[ProfilerActivity.CPU]) as done, torch.no_grad():
        each = multiplied(x, *layers)
    calls = {event.key: event.count for event in done.key_averages()}
    assert calls["aten::addmm"] == products
    assert ("aten::cat" in calls) == (products == 1)
    for this, other in zip(each, one, strict=True):
        torch.testing.assert_close(this, other)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_row_begins_at_every_multiple(compiled: bool, forced: Callable[[torch.dtype], None]) -> None:
    """Of both operands and of the result: what a GPU's fast products ask for."""
    layer = Linear(10, 5)
    product = torch.compile(layer.forward, backend="eager", fullgraph=True) if compiled else layer
    forced(torch.float32)
    with held(layer, "cpu", torch.float32):
        assert layer.held is not None
        assert layer.held.shape == (8, 16)
        assert product(torch.randn(4, 10)).stride() == (8, 1)
    assert layer.held is None


def test_sizes_that_fit_are_left_alone(forced: Callable[[torch.dtype], None]) -> None:
    forced(torch.float32)
    layer = Linear(8, 16)
    with held(layer, "cpu", torch.float32):
        assert layer.held is None
        assert layer(torch.randn(4, 8)).grad_fn.name() == "AddmmBackward0"  # type: ignore[union-attr]


@pytest.mark.parametrize("before", [(), (0,), (2, 3)])
def test_any_axes_before_the_last(before: tuple[int, ...], forced: Callable[[torch.dtype], None]) -> None:
    layer = Linear(10, 5)
    x = torch.randn(*before, 10, requires_grad=True)
    found = []
    for padded in (False, True):
        if padded:
            forced(torch.float32)
        y = layer(x)
        found.append((y, *torch.autograd.grad(y.sin().sum(), (x, layer.weight, layer.bias))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_device_without_autocast_pads_nothing() -> None:
    """Such as meta, on which a model has shapes and no numbers."""
    assert Linear(10, 5, device="meta")(torch.empty(2, 10, device="meta")).shape == (2, 5)
