"""What the kernels share: the feature map, sums, and the rounding of a dot's operands."""

import triton
import triton.language as tl

__all__ = [
    "INTERPRETED",
    "both",
    "by_factors",
    "feature_map",
    "first_row",
    "groups_sum",
    "operand",
    "product",
    "real_keys",
    "row_max",
    "row_sum",
    "rows_before",
    "same_dtype",
    "slope",
]

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether the kernels of this process run in Triton's interpreter: settled when they are first imported."""


LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def feature_map(x):
    """``phi(x) = elu(x) + 1`` in float32: ``x + 1`` above 0, ``exp(x)`` below.

    Not elu and then + 1, which rounds exp(x) away below -8 in float16 and below -17 in float32.
    """
    x = x.to(tl.float32)
    # exp2(0) is 1 exactly. Two selects and exp would be twice the instructions; the NaN must be asked for.
    above = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return above + tl.exp2(tl.minimum(x, 0.0) * LOG2E)


@triton.jit
def slope(x):
    """``phi'(x)`` in float32: 1 above 0, ``exp(x)`` below."""
    below = tl.minimum(x.to(tl.float32), 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.exp2(below * LOG2E)


@triton.jit
def by_factors(scores, carry, column):
    """Scores [BT, BT] by ``u(i-j) = 1 - beta^(i-j+1)``, the power from two factors, - `carry` [BT] of the row
    and `column` [BT].

    Not u first: it would be made before the loop, and take a register each. `column` first, which is at least
    1: by the other small scores would become 0.
    """
    return scores + scores * column[None, :] * carry[:, None]


@triton.jit
def both(rows, columns, EVERY: tl.constexpr):
    """A tile's mask of its rows' and its columns'; `EVERY` column is in, where no dim was padded."""
    if EVERY:
        return rows
    else:  # noqa: RET505  # Triton wants the branches exclusive
        return rows & columns


@triton.jit
def real_keys(lengths, pair, heads, m):
    """How many of the m keys of a (batch, head) are real: `lengths` [batch] says, or all where it is None."""
    if lengths is None:
        return m
    else:  # noqa: RET505  # Triton wants the branches exclusive
        return tl.load(lengths + pair // heads)


@triton.jit
def row_sum(x, axis: tl.constexpr):
    """``tl.sum``, which fails in the interpreter where triton was imported before TRITON_INTERPRET was set
    (as torch.compile does in the same process); the interpreter knows its combine function all the same.
    """
    return tl.reduce(x, axis, tl.standard._sum_combine)


@triton.jit
def groups_sum(x, GROUPS: tl.constexpr):
    """The sums [GROUPS, columns] of the rows of x that are GROUPS apart: with as many groups as rows that lie
    in different threads at once, a sum that no thread needs another for."""
    return row_sum(tl.reshape(x, [x.shape[0] // GROUPS, GROUPS, x.shape[1]]), 0)


@triton.jit
def first_row(x, GROUPS: tl.constexpr):
    """The sums in groups, [GROUPS, columns], of x [columns]: all of it is in the first."""
    return tl.where(tl.arange(0, GROUPS)[:, None] == 0, x[None, :], 0.0)


@triton.jit
def rows_before(t, end, WHOLE: tl.constexpr):
    """``t < end``; `WHOLE` chunks have no row past the end, and their loads and stores no mask."""
    if WHOLE:
        return tl.full(t.shape, 1, tl.int1)
    else:  # noqa: RET505  # Triton wants the branches exclusive
        return t < end


@triton.jit
def row_max(x, axis: tl.constexpr):
    """``tl.max``, for the reason in `row_sum`."""
    return tl.reduce(x, axis, tl.standard._elementwise_max)


@triton.jit
def operand(x, DOT: tl.constexpr):
    """A tile as an operand of `product`, which says what `DOT` is."""
    if DOT == "bf16":
        return x.to(tl.bfloat16)
    elif x.dtype == tl.float32:  # noqa: RET505  # Triton wants the branches exclusive
        return tf32_rounded(x, DOT)
    else:
        return x.to(tl.float32)


@triton.jit
def tf32_rounded(x, DOT: tl.constexpr):
    """float32 as TF32 where `DOT` says so: its tensor cores cut the low 13 bits off, which would bias every
    product, so they are rounded away. What else x is is left as it is."""
    if DOT == "tf32" and x.dtype == tl.float32:
        bits = x.to(tl.int32, bitcast=True)
        rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
        return tl.where(x == x, rounded, x)  # a NaN stays one
    else:  # noqa: RET505
        return x


@triton.jit
def product(a, b, acc, DOT: tl.constexpr):
    """``acc + a b``, summed in float32, of two tiles that `operand` made. `DOT` is what a and b are taken in:

    - ``bf16``, for bfloat16 inputs: the states too are rounded to it where they meet a query.
    - ``tf32``, for float16 inputs: it has float16's bits of mantissa and float32's range. In float16 itself
      phi(x) of x < -17 is 0, and a state summed over a long sequence is past 65504.
    - ``ieee``, for float32; ``tf32`` where its form says so.
    """
    if DOT == "tf32":
        return tl.dot(a, b, acc=acc, input_precision="tf32")
    else:  # noqa: RET505
        return tl.dot(a, b, acc=acc, input_precision="ieee")


@triton.jit
def same_dtype(a, b, acc, DOT: tl.constexpr):
    """``a b``, added to `acc` where that is not None, summed in float32, of two tiles of one dtype: softmax's
    weights are at most 1 and fit float16. `DOT` is ``ieee`` or, of float32 alone, ``tf32``."""
    return tl.dot(tf32_rounded(a, DOT), tf32_rounded(b, DOT), acc=acc, input_precision=DOT)
