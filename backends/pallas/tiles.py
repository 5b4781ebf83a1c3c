"""Block sizes: fixed by dtype and dims, most as the project's Triton kernels were measured with."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.spec import Case

from ..by_distance import forgotten

__all__ = [
    "MAX_DIM",
    "Tiles",
    "key_value_tiles",
    "padded",
    "query_tiles",
    "scan_tiles",
    "softmax_gradient_tiles",
    "softmax_tiles",
]

MAX_DIM = 256
"""The largest head_dim and value_dim: a program holds a whole row of q and k in one tile."""
WARP = 32
FAST_ROWS = 64
"""A chunk's in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One kernel's tile sizes."""

    rows: int
    """Queries and keys of a chunk; of softmax the queries of a block."""
    head_dim: int
    """Columns of q and k that a program holds, ..."""
    value_dim: int
    """... and of v."""
    blocks: int
    """Programs that share the columns of one chunk."""
    warps: int
    stages: int
    keys: int = 0
    """Keys of a block of softmax."""

    @property
    def groups(self) -> int:
        """Rows of a tile [rows, head_dim] that the threads of a program hold at once, 16 bytes of bfloat16 a
        thread; at least the 16 columns that a dot takes."""
        return min(self.rows, max(16, self.warps * WARP * 8 // self.head_dim))


def padded(case: Case) -> tuple[int, int]:
    """head_dim and value_dim as the kernels see them: powers of two, of at least 16.

    In bfloat16 the states [value_dim, head_dim] are at least [64, 64]: 64 rows are what a warp group
    multiplies at once, and of 32 columns Triton makes a dk and dv that read past a Hopper's shared memory.
    """
    least = 64 if case.dtype == "bfloat16" and case.spec.kind != "softmax" else 16
    return max(least, _power(case.head_dim)), max(least, _power(case.value_dim))


def scan_tiles(case: Case) -> Tiles:
    """Those of the forward: value_dim is split over programs where the states [value_dim, head_dim] of one
    would not fit the registers beside its other tiles."""
    head_dim, value_dim = padded(case)
    chunk, block, warps = _state(case, head_dim)
    block = min(block, value_dim)
    # With 2 stages a chunk's loads are issued at the end of the one before, and waited for at once. When each
    # phi(q) was made twice, linear attention at head_dim 128 took .36 ms with 2 and .46 with 3 all the same,
    # momentum .74 and .71.
    three = head_dim <= (128 if case.spec.kind == "momentum" else 64)
    stages = 3 if case.dtype == "bfloat16" and three else 2
    return Tiles(
        rows=chunk, head_dim=head_dim, value_dim=block, blocks=value_dim // block, warps=warps, stages=stages
    )


def query_tiles(case: Case) -> Tiles:
    """Those of the kernel of dq, whose states are [value_dim, block of head_dim]."""
    head_dim, value_dim = padded(case)
    rows, block, warps = _state(case, value_dim)
    block, width, stages = min(block, head_dim), _width(value_dim), 1
    if case.dtype == "bfloat16":
        warps, stages = _gradient_warps(case, width), (3, 2 if case.spec.kind == "linear" else 1, 1)[width]
    return Tiles(
        rows=rows, head_dim=block, value_dim=value_dim, blocks=head_dim // block, warps=warps, stages=stages
    )


def key_value_tiles(case: Case) -> tuple[tuple[Tiles, bool, bool], ...]:
    """Those of the kernel of dk and dv, and whether a launch makes dk, and dv: one launch where a program
    holds all of both, else one each."""
    head_dim, value_dim = padded(case)
    rows, keys, warps = _state(case, value_dim)
    other_rows, values, other_warps = _state(case, head_dim)
    keys, values = min(keys, head_dim), min(values, value_dim)
    stages = other_stages = 1
    if case.dtype == "bfloat16":
        warps, other_warps = (_gradient_warps(case, _width(dim)) for dim in (value_dim, head_dim))
        stages = other_stages = 2
        if _two_states(case):
            stages = other_stages = 1 if _width(head_dim, value_dim) == 0 else 2
        elif case.spec.kind == "momentum":
            warps = 8 if _width(value_dim) == 1 else warps
            stages = (3, 1, 2)[_width(head_dim, value_dim)]
    if (keys == head_dim or values == value_dim) and _width(head_dim, value_dim) < 2:
        most = max(warps, other_warps)
        whole = Tiles(
            rows=min(rows, other_rows), head_dim=head_dim, value_dim=value_dim, blocks=1, warps=most,
            stages=stages,
        )  # fmt: skip
        return ((whole, True, True),)
    by_head = Tiles(
        rows=rows, head_dim=keys, value_dim=value_dim, blocks=head_dim // keys, warps=warps, stages=stages
    )
    by_value = Tiles(
        rows=other_rows, head_dim=head_dim, value_dim=values, blocks=value_dim // values, warps=other_warps,
        stages=other_stages,
    )  # fmt: skip
    return ((by_head, True, False), (by_value, False, True))


def softmax_tiles(case: Case) -> Tiles:
    """Those of the flash kernel."""
    width = _width(*padded(case))
    if case.dtype == "float32":
        found = ((64, 32, 8, 2), (64, 16, 8, 1), (16, 16, 8, 1))[width]
    else:
        found = ((128, 64, 4, 3), (128, 64, 8, 3), (64, 64, 8, 2))[width]
    return _softmax(case, *found)


def softmax_gradient_tiles(case: Case, *, by_keys: bool) -> Tiles:
    """Those of the kernel of dq, or of dk and dv (`by_keys`), which hold twice as much."""
    width = _width(*padded(case))
    if case.dtype == "float32":  # on the ordinary cores two stages spill
        own, others, warps, stages = ((32, 32, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1))[width]
    elif width == 2:
        # Blocks of 32, which no wgmma takes: with 64 keys Triton 3.6 made a dk that is wrong at head_dim 200
        # and value_dim 40 on a card, and right in the interpreter.
        own, others, warps, stages = 32, 32, 4, 2
    elif by_keys:
        own, others, warps, stages = ((128, 32, 4, 3), (64, 32, 4, 3))[width]
    else:
        own, others, warps, stages = ((64, 64, 4, 3), (128, 64, 8, 3))[width]
    return _softmax(case, *((others, own) if by_keys else (own, others)), warps, stages)


def _softmax(case: Case, rows: int, keys: int, warps: int, stages: int) -> Tiles:
    head_dim, value_dim = padded(case)
    return Tiles(
        rows=rows, keys=keys, head_dim=head_dim, value_dim=value_dim, blocks=1, warps=warps, stages=stages
    )


def _gradient_warps(case: Case, width: int) -> int:
    """Eight where momentum's two states of 128 columns lie beside a chunk of the backward: they make products
    twice, and still take two thirds of the time of four, which spill."""
    return (4, 8 if _two_states(case) else 4, 8)[width]


def _two_states(case: Case) -> bool:
    """Whether momentum's kernels of bfloat16 hold S and P in float32, since no chunk forgets."""
    return case.spec.kind == "momentum" and not forgotten(case.spec.beta, FAST_ROWS, "bf16")


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
    return FAST_ROWS, 64, (4, 4, 8)[width]
