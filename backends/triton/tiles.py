"""Block sizes: fixed by dtype and dims, chosen so that a program's tiles fit the registers of a Hopper SM."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.spec import Case

__all__ = [
    "MAX_DIM",
    "Tiles",
    "key_value_tiles",
    "linear_tiles",
    "query_tiles",
    "softmax_gradient_tiles",
    "softmax_tiles",
]

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
    head_blocks: int = 1
    """The same of head_dim."""


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
        rows, keys, warps, stages = (64, 16, 8, 1) if wide else (64, 32, 8, 2)
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
    else:
        chunk, block, warps = (64, 64, 8) if momentum and wide else (64, 64, 4)
    block = min(block, value_dim)
    return Tiles(
        rows=chunk, keys=chunk, head_dim=head_dim, value_dim=block,
        value_blocks=-(-case.value_dim // block), warps=warps, stages=2,
    )  # fmt: skip


def query_tiles(case: Case) -> Tiles:
    """Those of the kernel of dq, whose states are [value_dim, block of head_dim]."""
    head_dim, value_dim = _padded(case.head_dim), _padded(case.value_dim)
    rows, block, warps = _gradient_block(case, value_dim)
    block = min(block, head_dim)
    return Tiles(
        rows=rows, keys=rows, head_dim=block, value_dim=value_dim, value_blocks=1,
        head_blocks=-(-case.head_dim // block), warps=warps, stages=1,
    )  # fmt: skip


def key_value_tiles(case: Case) -> tuple[Tiles, ...]:
    """Those of the kernel of dk and dv: one launch where a program holds the whole state, else one each."""
    head_dim, value_dim = _padded(case.head_dim), _padded(case.value_dim)
    rows, keys_block, warps = _gradient_block(case, value_dim)
    other_rows, values_block, other_warps = _gradient_block(case, head_dim)
    if keys_block >= head_dim or values_block >= value_dim:
        both = min(rows, other_rows)
        return (
            Tiles(
                rows=both, keys=both, head_dim=head_dim, value_dim=value_dim, value_blocks=1,
                warps=max(warps, other_warps), stages=1,
            ),
        )  # fmt: skip
    return (
        Tiles(
            rows=rows, keys=rows, head_dim=keys_block, value_dim=value_dim, value_blocks=1,
            head_blocks=-(-case.head_dim // keys_block), warps=warps, stages=1,
        ),
        Tiles(
            rows=other_rows, keys=other_rows, head_dim=head_dim, value_dim=values_block,
            value_blocks=-(-case.value_dim // values_block), warps=other_warps, stages=1,
        ),
    )  # fmt: skip


def _gradient_block(case: Case, whole: int) -> tuple[int, int, int]:
    """Rows, columns of the dim that is split, and warps, where the other dim has so many columns."""
    wide = whole > 64
    if case.dtype == "float32":
        return (16, 16, 8) if wide else (32, 32, 8)
    if _ragged(case):
        return (16, 32, 2) if wide else (32, 32, 2)
    if case.dtype == "float16":
        return (32, 32, 8) if wide else (32, 64, 8)
    return 64, 64, 8 if wide and case.spec.kind == "momentum" else 4


def softmax_gradient_tiles(case: Case, *, by_keys: bool) -> Tiles:
    """Those of the kernel of dq, or of dk and dv (`by_keys`), which hold twice as much."""
    head_dim, value_dim = _padded(case.head_dim), _padded(case.value_dim)
    wide = max(head_dim, value_dim) > 64
    stages = 1 if case.dtype == "float32" else 2  # on the ordinary cores two stages spill
    if case.dtype == "float32":
        own, others, warps = (16, 16, 8) if wide else (32, 32, 8)
    elif _ragged(case):
        own, others, warps = (16, 16, 2) if wide else (32, 32, 2)
    else:
        own, others, warps = (64, 64, 8) if wide else (64, 64, 4)
    return Tiles(
        rows=others if by_keys else own, keys=own if by_keys else others, head_dim=head_dim,
        value_dim=value_dim, value_blocks=1, warps=warps, stages=stages,
    )  # fmt: skip
