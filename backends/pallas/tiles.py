"""Block sizes: fixed by dtype and dims, those that the project's Triton kernels were measured with."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.spec import Case

__all__ = ["MAX_DIM", "Tiles", "padded", "scan_tiles"]

MAX_DIM = 256
"""The largest head_dim and value_dim: a program holds a whole row of q and k in one tile."""
WARP = 32


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One kernel's tile sizes."""

    rows: int
    """Queries and keys of a chunk."""
    head_dim: int
    """Columns of q and k that a program holds, ..."""
    value_dim: int
    """... and of v."""
    blocks: int
    """Programs that share the columns of one chunk."""
    warps: int
    stages: int

    @property
    def groups(self) -> int:
        """Rows of a tile [rows, head_dim] that the threads of a program hold at once, 16 bytes of bfloat16 a
        thread; at least the 16 columns that a dot takes."""
        return min(self.rows, max(16, self.warps * WARP * 8 // self.head_dim))


def padded(case: Case) -> tuple[int, int]:
    """head_dim and value_dim as the kernels see them: powers of two, of at least 16.

    In bfloat16 value_dim is at least 64, the rows of the transposed states, which are what a warp group
    multiplies at once.
    """
    least = 64 if case.dtype == "bfloat16" and case.spec.kind != "softmax" else 16
    return _power(case.head_dim), max(least, _power(case.value_dim))


def scan_tiles(case: Case) -> Tiles:
    """Those of the forward: value_dim is split over programs where the states [value_dim, head_dim] of one
    would not fit the registers beside its other tiles."""
    head_dim, value_dim = padded(case)
    chunk, block, warps = _state(case, head_dim)
    block = min(block, value_dim)
    # With 2 stages a chunk's loads are issued at the end of the one before, and waited for at once.
    stages = 3 if case.dtype == "bfloat16" and head_dim <= 128 else 2
    return Tiles(
        rows=chunk, head_dim=head_dim, value_dim=block, blocks=value_dim // block, warps=warps, stages=stages
    )


def _power(dim: int) -> int:
    return max(16, 1 << (dim - 1).bit_length())


def _width(*dims: int) -> int:
    """0, 1 or 2: the widest of the dims has up to 64 columns, 128 or 256."""
    return sum(max(dims) > limit for limit in (64, 128))


def _state(case: Case, whole: int) -> tuple[int, int, int]:
    """Rows of a chunk, columns of the dim that programs share, and warps, where the states of a program have
    all columns of the other dim. float32 products run on the ordinary cores, whose operands lie in registers
    along the whole summed dimension: so its chunks are short."""
    width = _width(whole)
    if case.dtype == "float32":
        return ((32, 32, 8), (16, 16, 8), (16, 16, 8))[width]
    if case.dtype == "float16":
        return ((32, 64, 8), (32, 32, 8), (16, 32, 8))[width]
    return 64, 64, (4, 4, 8)[width]
