"""How the kernels round, in one place: the feature map and the operands of their products."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from mtbench.spec import Case

__all__ = ["Arithmetic", "Contracted", "arithmetic_of"]

LOG2E = 1.4426950408889634

Contracted = Literal["ab", "abT", "aTb"]
"""Which product of two matrices: ``a b``, ``a b^T`` or ``a^T b``."""
_DIMENSIONS = {"ab": ((1,), (0,)), "abT": ((1,), (1,)), "aTb": ((0,), (0,))}


class Arithmetic(NamedTuple):
    """The numbers of a case's kernels. `dot` is what the chunked kernels take their products in, with sums in
    float32:

    - ``bf16``, for bfloat16: the states too are rounded to it where they meet a query.
    - ``tf32``, for float16: it has float16's bits of mantissa and float32's range. In float16 itself phi(x)
      of x < -17 is 0, and a state summed over a long sequence is past 65504.
    - ``ieee``, for float32.
    """

    dot: Literal["bf16", "tf32", "ieee"]
    compiled: bool
    """For a card, and not interpreted."""

    def operand(self, x: jax.Array) -> jax.Array:
        """A tile as an operand of `product`."""
        if self.dot == "bf16":
            return x.astype(jnp.bfloat16)
        if self.dot == "tf32" and x.dtype == jnp.float32:
            # The tensor cores cut the low 13 bits off, which would bias every product: round them away first.
            bits = lax.bitcast_convert_type(x, jnp.int32)
            nearest = lax.bitcast_convert_type((bits + 0x1000) & -0x2000, jnp.float32)
            return jnp.where(x == x, nearest, x)  # a NaN stays one
        return x.astype(jnp.float32)

    def product(self, a: jax.Array, b: jax.Array, contracted: Contracted = "ab") -> jax.Array:
        """The float32 product of two tiles that `operand` made."""
        return self._product(a, b, contracted, tf32=self.dot == "tf32")

    def half_product(self, a: jax.Array, b: jax.Array, contracted: Contracted = "ab") -> jax.Array:
        """The float32 product of two tiles as they are, in the inputs' own dtype."""
        return self._product(a, b, contracted, tf32=False)

    def _product(self, a: jax.Array, b: jax.Array, contracted: Contracted, *, tf32: bool) -> jax.Array:
        precision: Any = lax.Precision.HIGHEST
        if tf32 and self.compiled:  # XLA for a CPU has no such algorithm; the operands are rounded there too
            precision = lax.DotAlgorithmPreset.TF32_TF32_F32
        return lax.dot_general(
            a,
            b,
            (_DIMENSIONS[contracted], ((), ())),
            precision=precision,
            preferred_element_type=jnp.float32,
        )

    def exp2(self, x: jax.Array) -> jax.Array:
        """``2^x`` in float32. On a card it is the one instruction: libdevice's own takes four, to be right
        for results below 1.2e-38, which become 0 here."""
        if not self.compiled:
            return jnp.exp2(x)
        result = plgpu.elementwise_inline_asm(
            "ex2.approx.ftz.f32 $0, $1;",
            args=[x],
            constraints="=f,f",
            pack=1,
            result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, jnp.float32)],
        )
        return result[0]

    def feature(self, x: jax.Array) -> jax.Array:
        """``phi(x) = elu(x) + 1`` in float32: ``x + 1`` above 0, ``exp(x)`` below.

        Not elu and then + 1, which rounds exp(x) away below -8 in float16 and below -17 in float32. Chosen
        and not a maximum plus a minimum, since Pallas's lose a NaN on a card.
        """
        x = x.astype(jnp.float32)
        return jnp.where(x > 0.0, x + 1.0, self.exp2(x * self._log2e()))

    def slope(self, x: jax.Array) -> jax.Array:
        """``phi'(x)`` in float32: 1 above 0, ``exp(x)`` below."""
        x = x.astype(jnp.float32)
        return jnp.where(x > 0.0, 1.0, self.exp2(x * self._log2e()))

    def _log2e(self) -> Any:
        """log2(e), on a card as a number that Triton does not know to be a constant.

        Where two products want a tile in two layouts, Triton makes the tile anew for the second rather than
        move it there, if all that it is made of are loads and constants: every phi(q) was made twice, and a
        scan took up to 1.9 times as long. What hangs on a number of the program it moves. Of one (batch,
        head) pair that number is always 0, which Triton does know: phi is then made twice again, which costs
        time and no digit.
        """
        if not self.compiled:
            return LOG2E
        return jnp.where(pl.program_id(1) >= 0, jnp.float32(LOG2E), jnp.float32(0.0))


def arithmetic_of(case: Case) -> Arithmetic:
    """That of a case, by its dtype and device."""
    dots: dict[str, Literal["bf16", "tf32", "ieee"]] = {
        "float32": "ieee",
        "bfloat16": "bf16",
        "float16": "tf32",
    }
    return Arithmetic(dots[case.dtype], compiled=case.device == "cuda")
