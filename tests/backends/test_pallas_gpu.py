"""The Pallas kernels on a card, at a size that the interpreter does not reach."""

from __future__ import annotations

from typing import Any

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

from backends.pallas.attention import attention_of  # noqa: E402
from backends.pallas.plan import make_plan, processors  # noqa: E402
from mtbench.spec import ATTENTIONS, AttentionSpec, Case  # noqa: E402

pytestmark = [pytest.mark.jax, pytest.mark.gpu]

PAIRS = 5
NEEDED = 40 << 30


def last_and_alone(case: Case) -> tuple[Any, Any]:
    """The output of the last (batch, head) pair, of a call of all and of one of it alone."""

    def draw(number: int) -> Any:
        """A pair at a time: of all at once JAX draws float32 bits first."""
        keys = jax.random.split(jax.random.key(number), case.heads)
        shape = (1, 1, case.seq_len, case.head_dim)
        return jnp.concatenate([jax.random.normal(key, shape, case.dtype) for key in keys], 1)

    def attention(one: Case) -> Any:
        return jax.jit(attention_of(make_plan(one, processors(one.device))))

    qkv = [draw(number) for number in range(3)]
    o = attention(case)(*qkv)[:, -1:]
    return o, attention(case.replace(heads=1))(*(x[:, -1:] for x in qkv))


@pytest.mark.alone
@pytest.mark.parametrize("kind", [kind for kind in ATTENTIONS if kind != "softmax"])
def test_offsets_past_32_bits(kind: Any) -> None:
    """2.7e9 elements a tensor, 4.2 million positions: the last pair agrees with itself computed alone."""
    if jax.local_devices()[0].memory_stats()["bytes_limit"] < NEEDED:
        pytest.skip(f"needs {NEEDED >> 30} GiB of GPU memory")
    sizes: Any = {"heads": PAIRS, "seq_len": (1 << 22) + 5, "head_dim": 128, "dtype": "bfloat16"}
    found, wanted = last_and_alone(Case(spec=AttentionSpec(kind=kind), device="cuda", **sizes))
    difference = found.astype(jnp.float32) - wanted.astype(jnp.float32)
    assert bool(jnp.isfinite(found).all())
    assert float(jnp.linalg.norm(difference) / jnp.linalg.norm(wanted.astype(jnp.float32))) < 1e-2
