"""A decoder of pixels: its parts that are not every transformer's."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from mtbench.training.tasks.image_settings import sized  # noqa: E402
from mtbench.transformer.config import ModelConfig  # noqa: E402
from mtbench.transformer.fused import compile_parts  # noqa: E402
from mtbench.transformer.pixels import FewSymbols, PixelTransformer  # noqa: E402
from mtbench.transformer.plain import plain_attention  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = sized(12, d_model=16, layers=3, heads=2, head_dim=8, feed_forward=16, dropout=0.0)


def model(size: object = SIZE) -> PixelTransformer:
    torch.manual_seed(0)
    return PixelTransformer(ModelConfig(size=size), plain_attention)  # type: ignore[arg-type]


def test_few_symbols_have_the_gradient_of_an_embedding() -> None:
    plain = torch.nn.Embedding(7, 5)
    ours = FewSymbols(7, 5, _weight=plain.weight.detach().clone())
    symbols = torch.randint(0, 7, (3, 40), generator=torch.Generator().manual_seed(0))
    wanted = torch.randn(3, 40, 5)
    for embedding in (plain, ours):
        (embedding(symbols) * wanted).sum().backward()
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
    assert torch.equal(ours(symbols), plain(symbols))


def test_a_vocabulary_that_is_not_the_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="reads 257 symbols, not 11"):
        model(size=sized(12, vocabulary=11))


def test_compiled_parts_say_and_learn_the_same() -> None:
    """Three layers of one compilation, and the parameters keep their names."""
    plain, fused = model(), model()
    compile_parts(fused)
    assert list(fused.state_dict()) == list(plain.state_dict())
    pixels = torch.randint(0, 256, (2, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for one in (plain, fused):
        one(pixels).mean().backward()
    torch.testing.assert_close(fused(pixels), plain(pixels), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
