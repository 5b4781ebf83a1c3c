"""Block sizes: fixed by dtype and dims, chosen so that a program's tiles fit the registers of a Hopper SM."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.spec import Case

__all__ = ["MAX_DIM", "Tiles", "linear_tiles", "softmax_tiles"]

MAX_DIM = 128
"""The largest head_dim and value_dim: a program holds a whole row of q and k in one tile."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One kernel's tile sizes; dims are padded to a power of two of at least 16, the least a dot takes."""

    rows: int
    """Queries a block; in a chunked kernel the chunk, queries and keys alike."""
    keys: int
    head_dim: int
    value_dim: int
    """Of one program; the programs of one chunk share value_dim between them."""
    value_blocks: int
    warps: int
    stages: int


def _padded(dim: int) -> int:
    return max(16, 1 << (dim - 1).bit_length())


def _ragged(case: Case) -> bool:
    """Half-precision rows that are not whole multiples of 16 bytes, which no thread can load at once.

    On Hopper a dot of 4 warps or more becomes a wgmma, which reads its operands from shared memory; of such
    rows Triton 3.6 made kernels whose results were wrong, by another amount at every run. Two warps get
    mma instructions instead, whose operands lie in registers.
    """
    return case.dtype != "float32" and (case.head_dim % 8 != 0 or case.value_dim % 8 != 0)


def softmax_tiles(case: Case) -> Tiles:
    """Those of the flash kernel."""
    head_dim, value_dim = _padded(case.head_dim), _padded(case.value_dim)
    wide = max(head_dim, value_dim) > 64
    if case.dtype == "float32":
        rows, keys, warps, stages = (64, 16, 8, 2) if wide else (64, 32, 8, 2)
    elif _ragged(case):
        rows, keys, warps, stages = (32, 32, 2, 2)
    else:
        rows, keys, warps, stages = (128, 64, 8, 3) if wide else (128, 64, 4, 3)
    return Tiles(
        rows=rows, keys=keys, head_dim=head_dim, value_dim=value_dim,
        value_blocks=1, warps=warps, stages=stages,
    )  # fmt: skip


def linear_tiles(case: Case) -> Tiles:
    """Those of the chunked kernels.

    value_dim is split over programs where the float32 states [head_dim, value_dim] of one would not fit
    beside its other tiles. float32 products run on the ordinary cores, whose operands lie in registers
    along the whole summed dimension: so its chunks are short.
    """
    head_dim, value_dim = _padded(case.head_dim), _padded(case.value_dim)
    wide = head_dim > 64
    momentum = case.spec.kind == "momentum"
    if case.dtype == "float32":
        chunk, block, warps = (16, 16, 8) if wide else (32, 32, 8)
    elif _ragged(case):
        chunk, block, warps = (16, 32, 2) if wide else (32, 32, 2)
    elif case.dtype == "float16":
        chunk, block, warps = (32, 32, 8) if wide else (32, 64, 8)
    elif momentum:
        chunk, block, warps = (32, 64, 8) if wide else (64, 64, 8)
    else:
        chunk, block, warps = (64, 64, 8) if wide else (64, 64, 4)
    block = min(block, value_dim)
    return Tiles(
        rows=chunk, keys=chunk, head_dim=head_dim, value_dim=block,
        value_blocks=-(-case.value_dim // block), warps=warps, stages=2,
    )  # fmt: skip
