"""A pixel's step as one CUDA graph around the decoding kernels: it draws what plain steps draw."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mtbench import AttentionSpec, Case, load_backend  # noqa: E402
from mtbench.transformer.recurrent import past  # noqa: E402
from mtbench.transformer.sampling import Sampler  # noqa: E402
from tests.transformer.test_sampling import drawn, model  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.triton, pytest.mark.gpu]

POSITIONS, BATCH = 70, 5


def sampler(variant: str, *, dtype: str = "float32", compiled: bool = False) -> Sampler:
    def decoder(spec: AttentionSpec) -> Any:
        case = Case(
            spec=spec,
            batch=BATCH,
            heads=2,
            seq_len=POSITIONS,
            head_dim=16,
            dtype=dtype,
            device="cuda",  # type: ignore[arg-type]
        )
        return load_backend("triton").decoder(case)

    made = Sampler(
        model(variant, POSITIONS).cuda(), decoder, BATCH, bfloat16=dtype == "bfloat16", compiled=compiled
    )
    made.capture()
    return made


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("variant", ["softmax", "linear", "momentum", "momentum+adaptive"])
def test_a_captured_step_draws_what_a_plain_one_does(variant: str, compiled: bool) -> None:
    torch.compiler.reset()
    own, _ = drawn(Sampler(model(variant, POSITIONS).cuda(), past, BATCH))
    made = sampler(variant, compiled=compiled)
    pixels, nats = drawn(made)
    again, nats_again = drawn(made)
    assert torch.equal(pixels, again)
    assert torch.equal(nats, nats_again)
    assert not torch.equal(pixels, drawn(made, 2)[0])
    # A level at the edge of two may fall either way by rounding, and what follows it is another image then.
    if not compiled:
        assert (own == pixels).all(-1).float().mean() >= 0.6
    with torch.no_grad():
        whole = model(variant, POSITIONS).cuda()(pixels).double().sum(-1)
    assert nats.tolist() == pytest.approx(whole.tolist(), rel=1e-4)


@pytest.mark.parametrize("variant", ["softmax", "momentum+adaptive"])
def test_in_bfloat16(variant: str) -> None:
    pixels, nats = drawn(sampler(variant, dtype="bfloat16"))
    with torch.no_grad():
        whole = model(variant, POSITIONS).cuda()(pixels).double().sum(-1)
    assert nats.tolist() == pytest.approx(whole.tolist(), rel=1e-2)
