"""Decoding by Triton's kernel, a token at a time, against the float64 oracle of the whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, load_backend
from mtbench.errors import BadInput
from mtbench.inputs import make_inputs
from mtbench.oracle import Rows, attention
from mtbench.registry import import_part

torch = pytest.importorskip("torch")

ON_A_CARD = torch.cuda.is_available()
DEVICE = "cuda" if ON_A_CARD else "cpu"
UNAVAILABLE = load_backend("triton").unavailable(DEVICE)
pytestmark = [
    pytest.mark.triton,
    *([pytest.mark.gpu] if ON_A_CARD else []),
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
]

TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 5e-3}
N = 17
KINDS = pytest.mark.parametrize(
    "spec",
    [
        AttentionSpec(kind="linear"),
        AttentionSpec(kind="momentum", beta=0.9, gamma=0.6),
        AttentionSpec(kind="momentum", beta=0.999),
        AttentionSpec(kind="momentum", beta=0.0),
    ],
    ids=["linear", "momentum", "momentum-.999", "momentum-0"],
)


def decoding() -> Any:
    """The module, when the process has settled how its kernels run."""
    import_part("backends.triton.launch").enter(DEVICE)
    return import_part("backends.triton.decode")


def a_case(spec: AttentionSpec, dtype: str, head_dim: int = 64, value_dim: int = 64, **sizes: int) -> Case:
    return Case(
        spec=spec,
        batch=2,
        heads=1,
        seq_len=sizes.get("seq_len", N),
        head_dim=head_dim,
        value_dim=value_dim,
        dtype=dtype,  # type: ignore[arg-type]
        device=DEVICE,  # type: ignore[arg-type]
    )


def tensors(case: Case) -> list[Any]:
    inputs = make_inputs(case)
    return [
        torch.from_numpy(x.astype(np.float32)).to(DEVICE, getattr(torch, case.dtype))
        for x in (inputs.q, inputs.k, inputs.v)
    ]


def decoded(case: Case, prompt: int) -> Any:
    """Outputs of the tokens after the prompt, [batch, heads, n - prompt, value_dim]."""
    decode = decoding()
    q, k, v = tensors(case)
    if prompt:
        state = decode.state_after(case.spec, k[:, :, :prompt], v[:, :, :prompt])
    else:
        sizes = {name: getattr(case, name) for name in ("batch", "heads", "head_dim", "value_dim")}
        state = decode.empty_state(case.spec, device=DEVICE, **sizes)
    outputs = [
        decode.step(case.spec, *(x[:, :, i].contiguous() for x in (q, k, v)), state)
        for i in range(prompt, case.seq_len)
    ]
    return torch.stack(outputs, 2)


def error(case: Case, prompt: int) -> float:
    o = decoded(case, prompt)
    assert o.dtype == getattr(torch, case.dtype)
    found = o.double().cpu().numpy()
    after = np.arange(prompt, case.seq_len)
    rows = Rows({(b, h): after for b in range(case.batch) for h in range(case.heads)}, complete=False)
    truth = attention(case, make_inputs(case), rows).reshape(found.shape)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("head_dim", "value_dim"), [(64, 64), (1, 1), (5, 72), (72, 5), (128, 33), (256, 200)]
)
def test_tokens_one_by_one(spec: AttentionSpec, dtype: str, head_dim: int, value_dim: int) -> None:
    n = N if head_dim * value_dim < 5000 else 5
    assert error(a_case(spec, dtype, head_dim, value_dim, seq_len=n), 0) < TOLERANCE[dtype]


@KINDS
@pytest.mark.parametrize("prompt", [1, N // 2, N - 1])
def test_after_a_prompt(spec: AttentionSpec, prompt: int) -> None:
    assert error(a_case(spec, "float32", 40, 24), prompt) < TOLERANCE["float32"]


@KINDS
def test_a_long_prompt_ends_the_tables(spec: AttentionSpec) -> None:
    """beta^n no longer counts where the table of it ends; at .999 that is at 18,013."""
    assert error(a_case(spec, "float32", 8, 8, seq_len=19_000), 18_999) < TOLERANCE["float32"]


def test_very_negative_queries_and_keys() -> None:
    case = a_case(AttentionSpec(), "float32", 16, 16)
    decode = decoding()
    inputs = make_inputs(case)
    q, k, v = (np.float32(x) for x in (inputs.q - 25, inputs.k - 25, inputs.v))
    state = decode.state_after(case.spec, torch.from_numpy(k[:, :, :-1]), torch.from_numpy(v[:, :, :-1]))
    state = type(state)(*(None if x is None else x.to(DEVICE) for x in state))
    token = (torch.from_numpy(x[:, :, -1].copy()).to(DEVICE) for x in (q, k, v))
    found = decode.step(case.spec, *token, state).double().cpu().numpy()
    truth = attention(case, type(inputs)(q=q, k=k, v=v))[:, :, -1]
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 1e-5


def test_bad_input_is_one_line() -> None:
    decode = decoding()
    sizes: dict[str, Any] = {"batch": 1, "heads": 2, "head_dim": 8, "value_dim": 8, "device": DEVICE}
    with pytest.raises(BadInput, match="softmax attention has no state"):
        decode.empty_state(AttentionSpec(kind="softmax"), **sizes)
    with pytest.raises(BadInput, match="at most 256 here, not 300 and 8"):
        decode.empty_state(AttentionSpec(), **sizes | {"head_dim": 300})
    state = decode.empty_state(AttentionSpec(), **sizes)
    token = torch.zeros(1, 2, 8, device=DEVICE)
    with pytest.raises(BadInput, match=r"k must be \[1, 2, 8\] and contiguous, and is \[1, 2, 9\]"):
        decode.step(AttentionSpec(), token, torch.zeros(1, 2, 9, device=DEVICE), token, state)
    wide = torch.zeros(1, 2, 16, device=DEVICE)[:, :, ::2]
    with pytest.raises(BadInput, match="not contiguous"):
        decode.step(AttentionSpec(), wide, token, token, state)
    with pytest.raises(BadInput, match="not one of linear attention"):
        decode.step(AttentionSpec(kind="linear"), token, token, token, state)


@pytest.mark.gpu
@KINDS
def test_a_cuda_graph_holds_the_step(spec: AttentionSpec) -> None:
    """Captured once and replayed, token after token through the same tensors."""
    case = a_case(spec, "bfloat16")
    decode = decoding()
    q, k, v = tensors(case)
    sizes = {name: getattr(case, name) for name in ("batch", "heads", "head_dim", "value_dim")}
    state = decode.empty_state(spec, device=DEVICE, **sizes)
    token = [x[:, :, 0].contiguous() for x in (q, k, v)]
    decode.step(spec, *token, state)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        o = decode.step(spec, *token, state)
    for tensor in state:
        if tensor is not None:
            tensor.zero_()
    found = []
    for i in range(N):
        for mine, x in zip(token, (q, k, v), strict=True):
            mine.copy_(x[:, :, i])
        graph.replay()
        found.append(o.clone())
    assert torch.equal(torch.stack(found, 2), decoded(case, 0))
