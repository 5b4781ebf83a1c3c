"""The model: its invariants, its gradients, its names, and attention by any backend of torch."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtbench import AttentionSpec, BadInput, Case
from mtbench.inputs import make_inputs
from mtbench.oracle import attention as oracle
from mtbench.transformer.attention import BackendAttention
from mtbench.transformer.config import ATTENTION_KINDS, CONNECTION_KINDS, ModelConfig, ModelSize, Momenta
from mtbench.transformer.generation import Decoding, generate
from mtbench.transformer.model import EncoderDecoder, Transformer, sinusoids
from mtbench.transformer.plain import plain_attention

pytestmark = pytest.mark.torch

SIZE = ModelSize(
    vocabulary=7, max_len=16, d_model=12, layers=3, heads=2, head_dim=4, feed_forward=10, dropout=0.0
)
MOMENTA = Momenta(beta=0.6, gamma=0.9, connection=0.5, step=0.9, adaptive_step=0.9)
NAMES = Path(__file__).parents[1] / "fixtures" / "transformer-state-names.json"


def config(attention: str = "momentum", connection: str = "none", **changes: object) -> ModelConfig:
    made = ModelConfig(size=SIZE, attention=attention, connection=connection, momenta=MOMENTA)
    return replace(made, **changes)  # type: ignore[arg-type]


def model(made: ModelConfig, *, causal: bool = True, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(made, plain_attention, causal=causal).double()


def tokens(batch: int = 2, length: int = 9, seed: int = 1) -> torch.Tensor:
    return torch.randint(SIZE.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["softmax", "linear", "momentum"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [None, (5, 9)])
def test_plain_attention_is_the_oracles(kind: str, causal: bool, lengths: tuple[int, ...] | None) -> None:
    spec = AttentionSpec(kind=kind, causal=causal, beta=0.7, gamma=0.8)  # type: ignore[arg-type]
    case = Case(spec=spec, batch=2, heads=3, seq_len=9, head_dim=4, value_dim=5, lengths=lengths)
    inputs = make_inputs(case)
    q, k, v = (torch.from_numpy(x).double().transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    given = None if lengths is None else torch.tensor(lengths)
    o = plain_attention(spec, q, k, v, given).transpose(1, 2)
    torch.testing.assert_close(o, torch.from_numpy(oracle(case, inputs)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", ["momentum", "momentum-released"])
@pytest.mark.parametrize("causal", [True, False])
def test_without_momentum_it_is_the_linear_transformer(attention: str, causal: bool) -> None:
    still = Momenta(beta=0.0, gamma=1.0)
    momentum = model(config(attention, momenta=still), causal=causal)
    linear = model(config("linear"), causal=causal)
    assert torch.equal(momentum(tokens()), linear(tokens()))


@pytest.mark.parametrize("connection", CONNECTION_KINDS)
@pytest.mark.parametrize("attention", ["softmax", "linear", "momentum"])
def test_generation_gives_the_logits_of_the_forward(attention: str, connection: str) -> None:
    made, sequence = model(config(attention, connection)), tokens()
    decoding = Decoding(made)
    steps = torch.stack([decoding.step(token) for token in sequence.unbind(1)], 1)
    torch.testing.assert_close(steps, made(sequence), rtol=1e-10, atol=1e-10)


def test_the_released_attention_generates_by_another_function_than_it_trains() -> None:
    released, paper, sequence = model(config("momentum-released")), model(config("momentum")), tokens()
    assert not torch.allclose(released(sequence), paper(sequence), rtol=1e-2)
    one, other = Decoding(released), Decoding(paper)
    for token in sequence.unbind(1):
        assert torch.equal(one.step(token), other.step(token))


def test_the_released_attention_by_hand() -> None:
    """Eq 14's weight under a causal mask: w_j = gamma (1 - beta^(N-j+1)) / (1 - beta) for every query."""
    attention = model(config("momentum-released")).layers[0].attention
    x = torch.randn(1, 6, SIZE.d_model, dtype=torch.float64)
    q, k, v = attention.projected(x)
    fq, fk = (torch.nn.functional.elu(t) + 1 for t in (q, k))
    rows = []
    for i in range(6):
        weights = [0.9 * (1 - 0.6 ** (6 - j)) / (1 - 0.6) for j in range(i + 1)]
        scores = torch.stack([(fq[0, i] * fk[0, j]).sum(-1) for j in range(i + 1)])
        num = sum(w * s[:, None] * v[0, j] for j, (w, s) in enumerate(zip(weights, scores, strict=True)))
        rows.append(num / (scores.sum(0) + 1e-6)[:, None])
    wanted = attention.out(torch.stack(rows)[None].flatten(2))
    torch.testing.assert_close(attention(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", ["linear", "momentum"])
def test_what_generation_keeps_is_constant_but_for_softmax(attention: str) -> None:
    kept = {}
    for kind in (attention, "softmax"):
        decoding = Decoding(model(config(kind)))
        kept[kind] = []
        for token in tokens(length=12).unbind(1):
            decoding.step(token)
            kept[kind].append(decoding.numbers)
    assert len(set(kept[attention])) == 1
    assert kept["softmax"] == [kept["softmax"][0] * n for n in range(1, 13)]


@pytest.mark.parametrize("attention", ["softmax", "linear", "momentum"])
def test_padding_changes_nothing(attention: str) -> None:
    encoder = model(config(attention), causal=False)
    short, long = tokens(length=5), torch.cat((tokens(length=5), tokens(length=4, seed=5)), 1)
    alone = encoder(short)
    torch.testing.assert_close(
        encoder(long, lengths=torch.tensor((5, 5)))[:, :5], alone, rtol=1e-12, atol=1e-12
    )
    assert not torch.allclose(encoder(long)[:, :5], alone)


@pytest.mark.parametrize("attention", ["softmax", "linear", "momentum"])
@pytest.mark.parametrize("connection", ["none", "momentum-released", "adaptive"])
def test_an_encoder_decoder_sees_the_source_and_generates_as_it_trains(
    attention: str, connection: str
) -> None:
    torch.manual_seed(3)
    both = EncoderDecoder(config(attention, connection), plain_attention, source_vocabulary=9).double().eval()
    source = torch.randint(9, (2, 8), generator=torch.Generator().manual_seed(4))
    target, lengths = tokens(length=6), torch.tensor((5, 8))
    whole = both(source, target, lengths)
    decoding = Decoding(both, source, lengths)
    steps = torch.stack([decoding.step(token) for token in target.unbind(1)], 1)
    torch.testing.assert_close(steps, whole, rtol=1e-10, atol=1e-10)
    padded = source.clone()
    padded[0, 5:] = 0
    assert torch.equal(both(padded, target, lengths), whole)
    assert not torch.allclose(both(padded, target), both(source, target))


@pytest.mark.parametrize("connection", CONNECTION_KINDS)
def test_the_models_gradients(connection: str) -> None:
    """Of a loss in every parameter, against differences along a random direction, in float64."""
    made = model(config("momentum", connection))
    sequence = tokens()

    def loss() -> torch.Tensor:
        logits = made(sequence[:, :-1]).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, sequence[:, 1:].flatten())

    parameters = list(made.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(6)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    h, sides = 1e-6, []
    with torch.no_grad():
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * h * d
            sides.append(float(loss()))
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * h * d
    assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(analytic, rel=1e-6)


def test_names_of_parameters_are_those_of_every_checkpoint_so_far() -> None:
    """A checkpoint of today is to be loaded tomorrow: a change of these is a change of the format."""
    made = {
        "transformer": {n: list(p.shape) for n, p in model(config()).state_dict().items()},
        "encoder_decoder": {
            n: list(p.shape) for n, p in EncoderDecoder(config(), plain_attention).state_dict().items()
        },
    }
    assert made == json.loads(NAMES.read_text())
    for attention in ATTENTION_KINDS:
        for connection in CONNECTION_KINDS:
            assert list(model(config(attention, connection)).state_dict()) == list(made["transformer"])


def test_generate_follows_the_likeliest() -> None:
    made = model(config())
    prompt = tokens(length=3)
    whole = generate(made, prompt, 4)
    assert torch.equal(whole[:, :3], prompt)
    for at in range(3, 7):
        assert torch.equal(whole[:, at], made(whole[:, :at])[:, -1].argmax(-1))
    with pytest.raises(BadInput, match="larger max_len"):
        generate(made, prompt, 14)
    with pytest.raises(BadInput, match="an encoder sees all"):
        Decoding(model(config(), causal=False))


def test_sinusoids() -> None:
    encoding = sinusoids(50, 7)
    assert encoding.shape == (50, 7)
    assert torch.equal(encoding[0], torch.tensor([0.0, 1, 0, 1, 0, 1, 0]))
    assert encoding[3, 0] == pytest.approx(float(torch.tensor(3.0).sin()))


BACKENDS = [
    ("torch-eager", None),
    ("torch-eager", "chunked"),
    ("torch-eager", "recurrent"),
]


@pytest.mark.parametrize(("backend", "form"), BACKENDS)
@pytest.mark.parametrize("attention", ["linear", "momentum", "momentum-released"])
def test_any_backend_computes_the_same_model(backend: str, form: str | None, attention: str) -> None:
    truth = model(config(attention, "adaptive"))
    made = Transformer(config(attention, "adaptive"), BackendAttention(backend, form), causal=True)
    made.load_state_dict({n: p.float() for n, p in truth.state_dict().items()})
    assert _agree(made, truth) < 1e-5


@pytest.mark.parametrize(
    ("backend", "form", "attention"),
    [
        ("torch-eager", "sdpa", "softmax"),
        ("torch-compile", "parallel", "momentum"),
        pytest.param("triton", "fused", "momentum", marks=pytest.mark.triton),
    ],
)
def test_other_kernels_do_too(backend: str, form: str, attention: str) -> None:
    """Triton's by its interpreter, with its own backward: of one layer."""
    small = replace(config(attention), size=replace(SIZE, layers=1))
    truth = model(small)
    made = Transformer(small, BackendAttention(backend, form), causal=True)
    made.load_state_dict({n: p.float() for n, p in truth.state_dict().items()})
    assert _agree(made, truth) < 1e-5


def _agree(made: Transformer, truth: Transformer) -> float:
    """The worst relative error of logits and gradients."""
    errors = []
    results = []
    for one in (made, truth):
        logits = one(tokens())
        logits.square().mean().backward()
        results.append([logits.detach(), *(p.grad for p in one.parameters())])
    for found, wanted in zip(*results, strict=True):
        # A key's bias has no gradient under softmax: what is compared there is rounding.
        size = max(float(wanted.norm()), 1e-3)
        errors.append(float((found.double() - wanted).norm()) / size)
    return max(errors)


@pytest.mark.parametrize("backend", ["torch-eager", pytest.param("triton", marks=pytest.mark.triton)])
def test_a_model_that_has_run_can_be_copied(backend: str) -> None:
    """As averages of a training's weights do; its kernels hold none of them."""
    small = replace(config(), size=replace(SIZE, layers=1))
    made = Transformer(small, BackendAttention(backend), causal=True)
    logits = made(tokens())
    copied = copy.deepcopy(made)
    assert torch.equal(copied(tokens()), logits)
    copied(tokens()).sum().backward()
    assert all(p.grad is None for p in made.parameters())


def test_a_kernel_is_built_once_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = BackendAttention("torch-eager")
    built: list[Case] = []
    build = type(attend.backend).build

    def counted(self: object, case: Case, form: str) -> object:
        built.append(case)
        return build(self, case, form)  # type: ignore[arg-type]

    monkeypatch.setattr(type(attend.backend), "build", counted)
    made = Transformer(config(), attend, causal=True)
    for _ in range(3):
        made(tokens())
    assert [case.mode for case in built] == ["forward_backward"]
    with torch.no_grad():
        made(tokens())
    made(tokens(length=4))
    assert [(case.mode, case.seq_len) for case in built[1:]] == [("forward", 9), ("forward_backward", 4)]


@pytest.mark.parametrize(
    ("backend", "form", "told"),
    [
        ("jax", None, "computes on arrays of jax"),
        ("nothing", None, "unknown backend"),
        ("torch-eager", "fused", "has no form 'fused' of momentum attention"),
        ("sdpa", None, "no form of momentum attention"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_reason(
    backend: str, form: str | None, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        Transformer(config(), BackendAttention(backend, form), causal=True)(tokens())


def test_a_declared_limit_is_the_reason() -> None:
    encoder = Transformer(config("softmax"), BackendAttention("torch-compile", "flex"), causal=False)
    with pytest.raises(BadInput, match=r"flex with lengths \(padding\).*: its block mask would"):
        encoder(tokens(), lengths=torch.tensor((3, 9)))
    with pytest.raises(BadInput, match="float64"):
        Transformer(config(), BackendAttention("torch-eager"), causal=True).double()(tokens())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention": "moment"}, "did you mean 'momentum'"),
        ({"connection": "adaptve"}, "did you mean 'adaptive'"),
    ],
)
def test_unknown_names_are_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        config(**changes)


def test_a_configuration_survives_json() -> None:
    made = config("softmax", "adaptive-released")
    assert ModelConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made
