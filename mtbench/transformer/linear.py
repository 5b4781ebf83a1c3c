"""Linear layers whose products a GPU does fast at odd sizes.

cuBLAS does a half-precision product whose rows do not begin at multiples of 16 bytes by kernels that were
written for older cards: at the sizes of the paper's translation, 278, 507 and 139, at a fraction of the rate.
So there (`ALIGNED`) both operands are written into rows of the next multiple, where autocast would have
copied them anyway. In the columns that are added the input has ones, and the weight the bias, once, and
zeros: the sums are the same, the bias is one of their terms, and its gradient comes with the weight's, where
it would take a sum of its own. Parameters, results and gradients have their own sizes.

A product is written twice: as PyTorch has it, which torch.compile fuses with what lies around, and as an
`autograd.Function` for when nothing does, which copies as little as it can.

>>> layer = Linear(3, 5)
>>> layer(torch.zeros(2, 4, 3)).shape
torch.Size([2, 4, 5])
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ALIGNED", "Linear", "multiplied", "odd", "up"]

ALIGNED: dict[tuple[str, torch.dtype], int] = {
    ("cuda", torch.bfloat16): 8,
    ("cuda", torch.float16): 8,
}
"""Numbers to whose multiples rows are padded, by device and by the precision of the product; of others they
are not."""


class Linear(nn.Linear):
    """torch.nn.Linear, with bias; see the module."""

    held: torch.Tensor | None = None
    """Its padded rows, while `mtbench.transformer.held` holds them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., out_features] of [..., in_features]."""
        return multiplied(x, self)[0]

    def merged(self, x: torch.Tensor) -> torch.Tensor:
        """The same of [..., heads, in_features / heads], in whatever order that lies."""
        return multiplied(x, self, axes=2)[0]

    def rows(self, dtype: torch.dtype, multiple: int) -> torch.Tensor:
        """Weight, bias and zeros in that precision: [out_features, in_features + 1], both up to the next
        multiple."""
        (n, k), (rows, columns) = self.weight.shape, self.padded(multiple)
        whole = torch.cat((self.weight, self.bias[:, None]), 1).to(dtype)
        return functional.pad(whole, (0, columns - k - 1, 0, rows - n))

    def padded(self, multiple: int) -> tuple[int, int]:
        """How many rows and columns those are."""
        return up(self.out_features, multiple), up(self.in_features + 1, multiple)


def multiplied(
    x: torch.Tensor, *layers: Linear, axes: int = 1, heads: int | None = None
) -> tuple[torch.Tensor, ...]:
    """What each of some layers makes of x, by one product: x is read once, and its gradient is one sum. On a
    CPU it is a product each where there is no gradient and x is smaller than the weights, which one product
    has to copy: a decoder's token.

    Args:
        x: its last `axes` axes are what the layers read.
        layers: of as many inputs.
        axes: 1 or more.
        heads: None for [..., out_features], a number for [..., heads, out_features / heads].
    """
    how = _padding(x, layers)
    sizes = tuple(layer.out_features for layer in layers)
    if how is None:
        x = x.flatten(-axes)
        if len(layers) == 1 or _copy_costs_more(x, layers):
            found = tuple(functional.linear(x, layer.weight, layer.bias) for layer in layers)
        else:
            weight = torch.cat([layer.weight for layer in layers])
            bias = torch.cat([layer.bias for layer in layers])
            found = functional.linear(x, weight, bias).split(sizes, -1)
        return tuple(_split(y, heads) for y in found)
    rows = [layer.rows(*how) if layer.held is None else layer.held for layer in layers]
    weight = rows[0] if len(rows) == 1 else torch.cat(rows)
    if torch.compiler.is_compiling():
        x = x.flatten(-axes).to(weight.dtype)
        y = functional.pad(x, (0, weight.shape[1] - x.shape[-1]), value=1.0) @ weight.T
        return tuple(_split(y[..., at : at + size], heads) for at, size in _places(sizes, how[1]))
    made: tuple[torch.Tensor, ...] = _Product.apply(x, weight, axes, sizes, how[1], heads)  # type: ignore[no-untyped-call]
    return made


def _copy_costs_more(x: torch.Tensor, layers: tuple[Linear, ...]) -> bool:
    """Than it saves. A GPU waits for its launches there, and a copy of all weights is one."""
    few = x.numel() < sum(layer.weight.numel() for layer in layers)
    return few and x.device.type == "cpu" and not torch.is_grad_enabled()


def odd(layer: Linear, multiple: int) -> bool:
    """Whether a size of a layer is not a multiple."""
    return bool(layer.in_features % multiple or layer.out_features % multiple)


def _padding(x: torch.Tensor, layers: tuple[Linear, ...]) -> tuple[torch.dtype, int] | None:
    """The precision in which x is multiplied and the multiple, or None where nothing is padded."""
    device, dtype = x.device.type, x.dtype
    if not any(device == padding for padding, _ in ALIGNED):  # autocast knows not every device
        return None
    if dtype != torch.float64 and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    multiple = ALIGNED.get((device, dtype))
    if multiple is None or not any(odd(layer, multiple) for layer in layers):
        return None
    return dtype, multiple


def up(size: int, multiple: int) -> int:
    """The next multiple.

    >>> up(278, 8), up(280, 8)
    (280, 280)
    """
    return -(-size // multiple) * multiple


def _split(x: torch.Tensor, heads: int | None) -> torch.Tensor:
    return x if heads is None else x.unflatten(-1, (heads, -1))


class _Product(torch.autograd.Function):
    """x by padded rows of some layers, one under the other: what each makes of it. Gradients may lie in any
    order, and are copied once."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        rows: torch.Tensor,
        axes: int,
        sizes: tuple[int, ...],
        multiple: int,
        heads: int | None,
    ) -> tuple[torch.Tensor, ...]:
        before, read = x.shape[:-axes], x.shape[-axes:]
        k = read.numel()
        wide = x.new_empty((*before, rows.shape[1]), dtype=rows.dtype)
        wide[..., :k].unflatten(-1, read).copy_(x)
        wide[..., k:].fill_(1.0)
        wide = wide.view(-1, rows.shape[1])
        ctx.save_for_backward(wide, rows)
        ctx.k, ctx.dtype, ctx.shape = k, x.dtype, x.shape
        ctx.sizes, ctx.multiple, ctx.heads = sizes, multiple, heads
        y = (wide @ rows.T).view(*before, len(rows))
        return tuple(_split(y[..., at : at + size], heads) for at, size in _places(sizes, multiple))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        wide, rows = ctx.saved_tensors
        g = _together(gradients, ctx.sizes, ctx.multiple, ctx.heads, rows.dtype)
        dx = (g @ rows)[:, : ctx.k].view(ctx.shape).to(ctx.dtype)
        return dx, g.T @ wide, None, None, None, None


def _places(sizes: tuple[int, ...], multiple: int) -> list[tuple[int, int]]:
    """Where each layer's own outputs begin, and how many they are."""
    found, at = [], 0
    for size in sizes:
        found.append((at, size))
        at += up(size, multiple)
    return found


def _together(
    gradients: tuple[torch.Tensor, ...],
    sizes: tuple[int, ...],
    multiple: int,
    heads: int | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Those of the layers side by side, with zeros where a size is padded: [rows, padded outputs]."""
    first = gradients[0]
    if heads is None and len(sizes) == 1 and sizes[0] % multiple == 0:
        return first.reshape(-1, sizes[0]).to(dtype).contiguous()
    before = first.shape[: -1 if heads is None else -2]
    width = sum(up(size, multiple) for size in sizes)
    found = first.new_empty((*before, width), dtype=dtype)
    for (at, size), gradient in zip(_places(sizes, multiple), gradients, strict=True):
        _split(found[..., at : at + size], heads).copy_(gradient)
        found[..., at + size : at + up(size, multiple)].zero_()
    return found.view(-1, width)
