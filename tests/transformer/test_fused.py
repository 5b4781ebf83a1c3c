"""Parts that are compiled whole: as many versions of one as a training has."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mtbench.training.tasks import load_task
from mtbench.transformer import linear
from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.fused import compile_parts
from mtbench.transformer.held import held
from mtbench.transformer.plain import plain_attention
from mtbench.transformer.refiner import Refiner

pytestmark = pytest.mark.torch

ODD = ModelSize(
    vocabulary=23, max_len=9, d_model=10, layers=1, heads=2, head_dim=5, feed_forward=13, dropout=0
)
LENGTHS = torch.tensor([7, 3, 1])
WIDTHS = (3, 4, 5, 6)


@pytest.fixture
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_translation_has_more_shapes_than_torch_compiles_by_itself(
    monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    """Four widths in training, evaluation and translation, encoder and decoder: what Dynamo makes of them,
    without the compiler behind it, which would take minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    size = ModelSize(vocabulary=7, max_len=9, d_model=8, layers=2, heads=2, head_dim=4, feed_forward=8)
    model = Refiner(ModelConfig(size=size, attention="linear", connection="adaptive"), plain_attention)
    compile_parts(model)
    for width in WIDTHS:
        source, lengths = torch.ones(12 // width, width, dtype=torch.long), torch.full((12 // width,), width)
        for training in (True, False):
            model.train(training)
            with torch.set_grad_enabled(training):
                memory, _ = model.encoded(source, lengths)
                for logits, said in model.said(source, lengths, memory, lengths, width, 2):
                    model.judged(logits, said, source, lengths)
        # When a test set is translated a batch is of another size, and a translation may be longer.
        found = model.translated(source[:1], lengths[:1], width + 2, 2)
        assert found.shape == (1, width + 2)


def learnt(name: str, connection: str, *, compiled: bool) -> list[torch.Tensor]:
    """The loss of a translation and every gradient, whose products are padded where they are compiled."""
    torch.manual_seed(0)
    task = load_task(name)
    config = ModelConfig(size=ODD, attention="momentum", connection=connection)
    model = task.model(config, plain_attention).double()
    names = list(model.state_dict())
    if compiled:
        compile_parts(model)
    assert list(model.state_dict()) == names
    source, target = torch.randint(3, ODD.vocabulary, (2, 3, 7))
    batch = {"source": source, "source_lengths": LENGTHS, "target": target, "target_lengths": LENGTHS.flip(0)}
    with held(model, "cpu", torch.float64):
        loss, _ = task.loss(model, batch)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("name", "connection", "whole"),
    [
        ("translation", "none", ()),
        ("translation-refined", "momentum", ()),
        ("translation-refined", "adaptive", ()),
        ("translation", "adaptive", ("asked", "judged")),
    ],
)
def test_a_compiled_translation_learns_the_same(
    name: str, connection: str, whole: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    """What PyTorch makes of each part forward and backward, and of two the C++ compiler, too."""
    plain = learnt(name, connection, compiled=False)
    monkeypatch.setitem(linear.ALIGNED, ("cpu", torch.float64), 8)
    really, seen = torch.compile, set()

    def quickly(part: Callable[..., Any], **options: Any) -> Any:
        seen.add(part.__name__)
        return really(part, backend="inductor" if part.__name__ in whole else "aot_eager", **options)

    monkeypatch.setattr(torch, "compile", quickly)
    for one, other in zip(learnt(name, connection, compiled=True), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    assert seen == {"together", "projected", "finished", "asked", "answered", "judged"}


def test_a_copy_of_a_compiled_model_has_its_own_weights(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    really = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **how: really(part, backend="aot_eager", **how))
    model = Refiner(ModelConfig(size=ODD, attention="linear"), plain_attention)
    compile_parts(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(2.0)
    plain = Refiner(ModelConfig(size=ODD, attention="linear"), plain_attention)
    plain.load_state_dict(copied.state_dict())
    source = torch.randint(3, ODD.vocabulary, (3, 7))
    found, wanted = (one.encoded(source, LENGTHS)[0] for one in (copied, plain))
    torch.testing.assert_close(found, wanted)
