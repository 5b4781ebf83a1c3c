"""Parts that are compiled whole: as many versions of one as a training has."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch

from mtbench.transformer.config import ModelConfig, ModelSize
from mtbench.transformer.fused import compile_parts
from mtbench.transformer.plain import plain_attention
from mtbench.transformer.refiner import Refiner

pytestmark = pytest.mark.torch

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
