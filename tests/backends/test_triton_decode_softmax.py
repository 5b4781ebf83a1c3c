"""Decoding with softmax attention by Triton's kernel, against the float64 oracle of the whole sequence."""

from __future__ import annotations

import numpy as np
import pytest

from mtbench import AttentionSpec, load_backend
from mtbench.errors import BadInput
from mtbench.inputs import make_inputs
from mtbench.oracle import attention
from mtbench.registry import import_part
from tests.backends.test_triton_decode import DEVICE, ON_A_CARD, TOLERANCE, UNAVAILABLE, a_case, tensors

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.triton,
    *([pytest.mark.gpu] if ON_A_CARD else []),
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]

SPEC = AttentionSpec(kind="softmax")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("head_dim", "value_dim", "n"), [(1, 1, 5), (5, 72, 20), (256, 200, 5)])
def test_tokens_one_by_one_twice_over(dtype: str, head_dim: int, value_dim: int, n: int) -> None:
    """Past one block of keys, which are 16 at 72; and again with the cache cleared, which still holds the
    first round's numbers."""
    case = a_case(SPEC, dtype, head_dim, value_dim, seq_len=n)
    q, k, v = tensors(case)
    truth = attention(case, make_inputs(case))
    decoder = load_backend("triton").decoder(case)
    size = getattr(torch, dtype).itemsize
    assert decoder.held_bytes == 2 * n * (head_dim + value_dim) * size + 4
    for _ in range(2):
        rows = [decoder.step(*(x[:, :, i] for x in (q, k, v))) for i in range(n)]
        found = torch.stack(rows, 2)
        assert found.dtype == getattr(torch, dtype)
        error = np.linalg.norm(found.double().cpu().numpy() - truth) / np.linalg.norm(truth)
        assert error < TOLERANCE[dtype]
        decoder.clear()


@pytest.mark.parametrize("kind", ["linear", "momentum"])
def test_a_decoder_of_a_state_is_its_kernel_and_can_be_cleared(kind: str) -> None:
    case = a_case(AttentionSpec(kind=kind), "float32", 32, 32)  # type: ignore[arg-type]
    q, k, v = tensors(case)
    truth = attention(case, make_inputs(case))
    decoder = load_backend("triton").decoder(case)
    states = 1 if kind == "linear" else 2
    assert decoder.held_bytes == 2 * (states * 32 * 32 + 32) * 4
    for _ in range(2):
        found = torch.stack([decoder.step(*(x[:, :, i] for x in (q, k, v))) for i in range(case.seq_len)], 2)
        error = np.linalg.norm(found.double().cpu().numpy() - truth) / np.linalg.norm(truth)
        assert error < TOLERANCE["float32"]
        decoder.clear()


def test_what_does_not_fit_the_cache_is_one_line() -> None:
    import_part("backends.triton.launch").enter(DEVICE)
    module = import_part("backends.triton.decode_softmax")
    sizes = {"batch": 2, "heads": 1, "room": 4, "head_dim": 8, "value_dim": 8, "device": DEVICE}
    cache = module.empty_cache(dtype=torch.float32, **sizes)
    token = torch.ones(2, 1, 8, device=DEVICE)
    with pytest.raises(BadInput, match="and not one of linear"):
        module.step(AttentionSpec(kind="linear"), token, token, token, cache)
    with pytest.raises(BadInput, match=r"q must be \[2, 1, 8\] and contiguous, and is \[2, 1, 4\]"):
        module.step(SPEC, token[..., :4], token, token, cache)
    with pytest.raises(BadInput, match=r"the cache is of torch\.float32"):
        module.step(SPEC, token, token.half(), token.half(), cache)
    with pytest.raises(BadInput, match="at most 256"):
        module.empty_cache(dtype=torch.float32, **{**sizes, "head_dim": 300})
    with pytest.raises(BadInput, match="causal attention"):
        load_backend("triton").decoder(a_case(AttentionSpec(kind="softmax", causal=False), "float32"))
