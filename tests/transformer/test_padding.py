"""Padding never changes what is real: of encoders, classifiers and both translators, whatever the attention
and the connection."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtbench import BadInput
from mtbench.transformer.attention import BackendAttention
from mtbench.transformer.classifier import Classifier
from mtbench.transformer.config import ATTENTION_KINDS, ModelConfig, ModelSize, Momenta
from mtbench.transformer.generation import Decoding, translate
from mtbench.transformer.model import EncoderDecoder, Transformer
from mtbench.transformer.plain import plain_attention
from mtbench.transformer.refiner import PAD, Refiner, spread

pytestmark = pytest.mark.torch

SIZE = ModelSize(
    vocabulary=9, max_len=24, d_model=12, layers=2, heads=2, head_dim=5, feed_forward=10, dropout=0.0
)
MOMENTA = Momenta(beta=0.6, gamma=0.9, connection=0.5)
CONNECTIONS = ("none", "momentum", "adaptive")
LENGTHS, WANTED = torch.tensor((6, 3)), torch.tensor((4, 7))


def config(attention: str, connection: str = "none") -> ModelConfig:
    return ModelConfig(size=SIZE, attention=attention, connection=connection, momenta=MOMENTA)


def symbols(width: int, lengths: torch.Tensor, filler: int) -> torch.Tensor:
    """[2, width]: the same real symbols at any width, and behind them the filler."""
    found = torch.full((2, width), filler)
    for row, length in enumerate(lengths.tolist()):
        generator = torch.Generator().manual_seed(row)
        found[row, :length] = torch.randint(3, SIZE.vocabulary, (length,), generator=generator)
    return found


def made(kind: type, *args: Any) -> Any:
    torch.manual_seed(0)
    return kind(*args).double().eval()


def same(one: torch.Tensor, other: torch.Tensor, lengths: torch.Tensor) -> None:
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(one[row, :length], other[row, :length], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("attention", ATTENTION_KINDS)
def test_padding_changes_nothing(attention: str, connection: str) -> None:
    made_of = config(attention, connection)
    whole = made(Classifier, made_of, plain_attention, 3)
    narrow, wide = symbols(6, LENGTHS, 0), symbols(11, LENGTHS, 5)
    torch.testing.assert_close(whole(narrow, LENGTHS), whole(wide, LENGTHS), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(whole(narrow, LENGTHS), whole(narrow))

    both = made(EncoderDecoder, made_of, plain_attention)
    targets = symbols(7, WANTED, 0), symbols(12, WANTED, 4)
    same(both(narrow, targets[0], LENGTHS, WANTED), both(wide, targets[1], LENGTHS, WANTED), WANTED)

    refiner = made(Refiner, made_of, plain_attention)
    found = []
    for source, width in ((narrow, 7), (wide, 12)):
        memory, offsets = refiner.encoded(source, LENGTHS)
        found.append((offsets, refiner.said(source, LENGTHS, memory, WANTED, width, 3)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-11, atol=1e-11)
    for (one, _), (other, _) in zip(found[0][1], found[1][1], strict=True):
        same(one, other, WANTED)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_without_normaliser_by_hand(causal: bool) -> None:
    """sum_j w phi(q_i) . phi(k_j) v_j over sqrt(N), N each sequence's own."""
    torch.manual_seed(0)
    whole = Transformer(config("momentum-bare"), plain_attention, causal=causal).double()
    layer = whole.layers[0].attention
    x = torch.randn(2, 6, SIZE.d_model, dtype=torch.float64)
    q, k, v = layer.projected(x)
    fq, fk = (torch.nn.functional.elu(t) + 1 for t in (q, k))
    for row, n in enumerate(LENGTHS.tolist()):
        rows = []
        for i in range(n):
            seen = range(i + 1) if causal else range(n)
            last = i if causal else n - 1
            weights = {j: 0.9 * (1 - 0.6 ** (last - j + 1)) / 0.4 for j in seen}
            terms = [w * (fq[row, i] * fk[row, j]).sum(-1)[:, None] * v[row, j] for j, w in weights.items()]
            rows.append(torch.stack(terms).sum(0) / n**0.5)
        wanted = layer.out(torch.stack(rows).flatten(1))
        # With eps in the denominator that is taken back.
        torch.testing.assert_close(layer(x, lengths=LENGTHS)[row, :n], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attention", ["softmax", "momentum", "momentum-bare"])
def test_a_backend_computes_the_same_padded_model_with_one_kernel(attention: str) -> None:
    attend = BackendAttention("torch-eager")
    truth = made(Classifier, config(attention, "adaptive"), plain_attention, 3)
    model = Classifier(config(attention, "adaptive"), attend, 3).eval()
    model.load_state_dict({name: p.float() for name, p in truth.state_dict().items()})
    for lengths in ((6, 3), (1, 11), (11, 2)):
        given = torch.tensor(lengths, dtype=torch.int32)
        found = model(symbols(11, given, 0), given)
        torch.testing.assert_close(found.double(), truth(symbols(11, given, 0), given), rtol=1e-4, atol=1e-5)
    assert len(attend._kernels) == 1


def test_spread_copies_a_source_over_its_targets_places() -> None:
    source = torch.tensor([[4, 5, 6, 0], [7, 0, 0, 0]])
    found = spread(source, torch.tensor([3, 1]), torch.tensor([2, 5]), 5)
    assert found.tolist() == [[4, 5, PAD, PAD, PAD], [7, 7, 7, 7, 7]]


@pytest.mark.parametrize("attention", ["softmax", "linear", "momentum"])
def test_translate_says_the_likeliest_until_the_end(attention: str) -> None:
    both = made(EncoderDecoder, config(attention), plain_attention)
    source, end = symbols(6, LENGTHS, 0), 4
    with torch.no_grad():
        both.head.bias[end] += 0.4  # so that some end early
    found = translate(both, source, LENGTHS, begin=1, end=end, most=15)
    before = torch.nn.functional.pad(found[:, :-1], (1, 0), value=1)
    wanted = both(source, before, LENGTHS).argmax(-1)
    for row, told in zip(found.tolist(), wanted.tolist(), strict=True):
        length = row.index(end) + 1 if end in row else len(row)
        assert row[:length] == told[:length]
        assert set(row[length:]) <= {end}


def test_a_refined_translation_ends_where_it_said_it_would() -> None:
    refiner = made(Refiner, config("momentum"), plain_attention)
    found = refiner.translated(symbols(6, LENGTHS, 0), LENGTHS, 10, 3)
    assert found.shape == (2, 10)
    for row in found.tolist():
        length = row.index(PAD) if PAD in row else len(row)
        assert length >= 1
        assert PAD not in row[:length]
        assert set(row[length:]) <= {PAD}


def test_attention_without_normaliser_goes_no_token_at_a_time() -> None:
    with pytest.raises(BadInput, match="linear-bare: attention without normaliser"):
        Decoding(Transformer(config("linear-bare"), plain_attention, causal=True))
