"""Drawing images a pixel at a time: what is drawn has the likelihood that the whole model gives it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mtbench import AttentionSpec, BadInput, Case, load_backend  # noqa: E402
from mtbench.training.tasks.image_settings import sized  # noqa: E402
from mtbench.transformer.config import ModelConfig, Momenta  # noqa: E402
from mtbench.transformer.pixels import PixelTransformer  # noqa: E402
from mtbench.transformer.plain import plain_attention  # noqa: E402
from mtbench.transformer.recurrent import past  # noqa: E402
from mtbench.transformer.sampling import Sampler  # noqa: E402

pytestmark = pytest.mark.torch

VARIANTS = [
    "softmax",
    "linear",
    "momentum",
    "momentum+momentum",
    "momentum+adaptive",
    "linear+adaptive-released",
]


def model(variant: str, positions: int = 40, **sizes: Any) -> PixelTransformer:
    attention, _, connection = variant.partition("+")
    size = sized(
        positions, **{"d_model": 32, "layers": 3, "heads": 2, "head_dim": 16, "feed_forward": 48, **sizes}
    )
    torch.manual_seed(0)
    config = ModelConfig(
        size=size, attention=attention, connection=connection or "none", momenta=Momenta(beta=0.6, gamma=0.9)
    )
    return PixelTransformer(config, plain_attention).eval()


def drawn(sampler: Sampler, seed: int = 1) -> tuple[Any, Any]:
    sampler.restart()
    torch.manual_seed(seed)
    sampler.run(sampler.positions)
    return sampler.pixels, sampler.nats


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_model_gives_what_was_drawn_the_samplers_likelihood(variant: str) -> None:
    sampler = Sampler(model(variant), past, 3)
    pixels, nats = drawn(sampler)
    with torch.no_grad():
        whole = model(variant)(pixels).double().sum(-1)
    assert nats.tolist() == pytest.approx(whole.tolist(), rel=1e-5)
    assert len({tuple(image) for image in pixels.tolist()}) == 3


def test_a_seed_draws_the_same_again_and_another_other_images() -> None:
    sampler = Sampler(model("momentum"), past, 2)
    first, nats = drawn(sampler)
    again, nats_again = drawn(sampler)
    assert torch.equal(first, again)
    assert torch.equal(nats, nats_again)
    assert not torch.equal(first, drawn(sampler, 2)[0])


def test_memory_is_constant_but_for_softmax() -> None:
    held = {}
    for variant, positions in itertools.product(("softmax", "linear", "momentum"), (20, 60)):
        sampler = Sampler(model(variant, positions), past, 2)
        drawn(sampler)
        held[variant, positions] = sampler.held_bytes
    state, z = 16 * 16, 16
    assert held["momentum", 20] == held["momentum", 60] == 3 * 2 * 2 * (2 * state + z) * 4
    assert held["linear", 20] == held["linear", 60] == 3 * 2 * 2 * (state + z) * 4
    assert held["softmax", 60] == 2 * held["softmax", 20] == 3 * 2 * 2 * 64 * 2 * 16 * 4


def test_in_bfloat16_it_still_knows_what_it_draws() -> None:
    sampler = Sampler(model("momentum+adaptive"), past, 4, bfloat16=True)
    pixels, nats = drawn(sampler)
    with torch.no_grad():
        whole = model("momentum+adaptive")(pixels).double().sum(-1)
    assert nats.tolist() != pytest.approx(whole.tolist(), rel=1e-6)
    assert nats.tolist() == pytest.approx(whole.tolist(), rel=1e-2)
    assert sampler.model.head.weight.dtype == torch.float32


def test_compiled_it_draws_the_same() -> None:
    """The same random numbers; a level at the edge of two may fall either way by rounding."""
    plain, _ = drawn(Sampler(model("linear", 12), past, 3))
    fused, nats = drawn(Sampler(model("linear", 12), past, 3, compiled=True))
    assert (plain == fused).float().mean() > 0.9
    with torch.no_grad():
        whole = model("linear", 12)(fused).double().sum(-1)
    assert nats.tolist() == pytest.approx(whole.tolist(), rel=1e-5)


@pytest.mark.triton
@pytest.mark.skipif(
    torch.cuda.is_available() or load_backend("triton").unavailable("cpu") is not None,
    reason="Triton's interpreter; on a card tests/transformer/test_sampling_gpu.py does it",
)
@pytest.mark.parametrize("variant", ["softmax", "linear", "momentum+adaptive"])
def test_the_decoding_kernels_draw_the_same(variant: str) -> None:
    """Interpreted."""

    def decoder(spec: AttentionSpec) -> Any:
        case = Case(spec=spec, batch=2, heads=2, seq_len=6, head_dim=16, dtype="float32")
        return load_backend("triton").decoder(case)

    own, nats = drawn(Sampler(model(variant, 6, layers=2), past, 2))
    kernels, kernel_nats = drawn(Sampler(model(variant, 6, layers=2), decoder, 2))
    assert torch.equal(own, kernels)
    assert nats.tolist() == pytest.approx(kernel_nats.tolist(), rel=1e-5)


def test_what_was_trained_by_other_weights_is_not_drawn_from() -> None:
    with pytest.raises(BadInput, match="generate from a momentum checkpoint"):
        Sampler(model("momentum-released"), past, 1)
