"""Block sizes: fixed by dtype and dims, chosen so that a program's tiles fit the registers of a Hopper SM."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.spec import Case

from ..by_distance import forgotten

__all__ = [
    "MAX_DIM",
    "Tiles",
    "fast",
    "key_value_tiles",
    "linear_tiles",
    "padded",
    "query_tiles",
    "ragged",
    "softmax_gradient_tiles",
    "softmax_tiles",
]

WARP = 32

FAST_ROWS = 64
"""A chunk's in bfloat16."""

FACTORED = {"scan": (False, True, True), "dq": (False, True, False), "dk": (False, True, True)}
"""By `_width` of the dim that the states have all columns of, in bfloat16: where u(i-j) in two factors spares
more spilled registers than it costs instructions, as read in the compiled kernels (docs/triton-notebook.md,
section 9). dv, alone or with dk, has no mask but the zeros of u(i-j), and would need one."""

COLUMNS = (16, 8, 16)
"""Of the scan's product with z, by `_width` of head_dim, where it holds one state in bfloat16: at 128 the
threads hold 8 rows at once, and z in 8 sums spares 8 registers a thread. That was measured right and faster
on a card (docs/triton-notebook.md, section 9); head_dim 256 and two states were not."""

MAX_DIM = 256
"""The largest head_dim and value_dim: a program holds a whole row of q and k in one tile."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One kernel's tile sizes; dims are padded to a power of two, of at least 16 where there is a dot."""

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
    registers: int | None = None
    """A thread's at most, so that more programs fit a multiprocessor; None leaves it to the compiler."""

    factored: bool = False
    """Where a chunk forgets: whether u(i-j) is made of two factors, and not held in a tile."""
    columns: int = 16
    """Of the product with z at the least. 16 are the fewest that a wgmma of Triton's has; 8 take the older
    mma. The backward's kernels, which sum over them, need 16: a dot of half precision has no fewer."""

    @property
    def groups(self) -> int:
        """Rows of a tile [rows, head_dim] that the threads of a program hold at once, 16 bytes of bfloat16 a
        thread; at least the columns that a dot takes."""
        return min(self.rows, max(self.columns, self.warps * WARP * 8 // self.head_dim))


def _width(*dims: int) -> int:
    """0, 1 or 2: the widest of the dims has up to 64 columns, 128 or 256."""
    return sum(max(dims) > limit for limit in (64, 128))


def padded(dim: int) -> int:
    """A power of two, and what a dot takes at the least."""
    return max(16, 1 << (dim - 1).bit_length())


def _value_columns(case: Case) -> int:
    """Of the states, which are transposed: 64 at the least where a wgmma makes them, which takes 64 rows.
    With fewer Triton mixes two kinds of instruction in one kernel; one such was wrong on a card."""
    return max(64 if fast(case) else 16, padded(case.value_dim))


def _head_columns(case: Case) -> int:
    """Of the states that give dk and dv, which are read as they lie and transposed. Of [64, 32] in bfloat16
    Triton 3.6 makes products that read past the shared memory on a Hopper; [64, 64] is right."""
    return max(64 if fast(case) else 16, padded(case.head_dim))


def ragged(case: Case) -> bool:
    """Half-precision rows that are not whole multiples of 16 bytes, which no thread can load at once.

    On Hopper a dot of 4 warps or more becomes a wgmma, which reads its operands from shared memory; of such
    rows Triton 3.6 made kernels whose results were wrong, by another amount at every run. Two warps get
    mma instructions instead, whose operands lie in registers.
    """
    return case.dtype != "float32" and (case.head_dim % 8 != 0 or case.value_dim % 8 != 0)


def softmax_tiles(case: Case) -> Tiles:
    """Those of the flash kernel."""
    head_dim, value_dim = padded(case.head_dim), padded(case.value_dim)
    width = _width(head_dim, value_dim)
    if case.dtype == "float32":
        rows, keys, warps, stages = ((64, 32, 8, 2), (64, 16, 8, 1), (16, 16, 8, 1))[width]
    elif ragged(case):
        rows, keys, warps, stages = ((32, 32, 2, 2), (32, 32, 2, 2), (16, 16, 2, 1))[width]
    else:
        rows, keys, warps, stages = ((128, 64, 4, 3), (128, 64, 8, 3), (64, 64, 8, 2))[width]
    return Tiles(
        rows=rows, keys=keys, head_dim=head_dim, value_dim=value_dim,
        value_blocks=1, warps=warps, stages=stages,
    )  # fmt: skip


def linear_tiles(case: Case, *, tf32: bool = False) -> Tiles:
    """Those of the chunked kernels.

    value_dim is split over programs where the float32 states [value_dim, head_dim] of one would not fit
    beside its other tiles. float32 products but for `tf32` run on the ordinary cores, whose operands lie in
    registers along the whole summed dimension: so its chunks are short.
    """
    head_dim, value_dim = padded(case.head_dim), _value_columns(case)
    chunk, block, warps = _state(case, head_dim, tf32)
    block = min(block, value_dim)
    # With 2 stages a chunk's loads are issued at the end of the one before, and waited for at once.
    stages = 3 if case.dtype == "bfloat16" and _width(head_dim) < 2 else 2
    # Three programs a multiprocessor, where linear attention's one small state allows it.
    lean = fast(case) and case.spec.kind == "linear" and _width(head_dim, block) == 0
    return Tiles(
        rows=chunk, keys=chunk, head_dim=head_dim, value_dim=block,
        value_blocks=-(-case.value_dim // block), warps=warps, stages=stages,
        registers=168 if lean else None, factored=_factored(case, "scan", head_dim),
        columns=COLUMNS[_width(head_dim)] if _one_state(case) else 16,
    )  # fmt: skip


def query_tiles(case: Case, *, tf32: bool = False) -> Tiles:
    """Those of the kernel of dq, whose states are [value_dim, block of head_dim]."""
    head_dim, value_dim = padded(case.head_dim), _value_columns(case)
    rows, block, warps = _state(case, value_dim, tf32)
    block = min(block, head_dim)
    width = _width(value_dim)
    stages = 1
    if fast(case):
        warps, stages = _gradient_warps(case, width), (3, 2 if case.spec.kind == "linear" else 1, 1)[width]
    return Tiles(
        rows=rows, keys=rows, head_dim=block, value_dim=value_dim, value_blocks=1,
        head_blocks=-(-case.head_dim // block), warps=warps, stages=stages,
        factored=_factored(case, "dq", value_dim),
    )  # fmt: skip


def key_value_tiles(case: Case, *, tf32: bool = False) -> tuple[Tiles, ...]:
    """Those of the kernel of dk and dv: one launch where a program holds all of both, else one each."""
    head_dim, value_dim = _head_columns(case), _value_columns(case)
    rows, keys_block, warps = _state(case, value_dim, tf32)
    other_rows, values_block, other_warps = _state(case, head_dim, tf32)
    keys_block, values_block = min(keys_block, head_dim), min(values_block, value_dim)
    stages = other_stages = 1
    if fast(case):
        warps, other_warps = (_gradient_warps(case, _width(dim)) for dim in (value_dim, head_dim))
        stages = other_stages = 2
        if _two_states(case):
            stages = other_stages = 1 if _width(head_dim, value_dim) == 0 else 2
        elif case.spec.kind == "momentum":
            # Of the three kernels dk's alone, with all of v, is faster by more warps and no second stage.
            warps = 8 if _width(value_dim) == 1 else warps
            stages = (3, 1, 2)[_width(head_dim, value_dim)]
    fits = keys_block == head_dim or values_block == value_dim
    if fits and _width(head_dim, value_dim) < 2:
        both = min(rows, other_rows)
        return (
            Tiles(
                rows=both, keys=both, head_dim=head_dim, value_dim=value_dim, value_blocks=1,
                warps=max(warps, other_warps), stages=stages,
            ),
        )  # fmt: skip
    return (
        Tiles(
            rows=rows, keys=rows, head_dim=keys_block, value_dim=value_dim, value_blocks=1,
            head_blocks=-(-case.head_dim // keys_block), warps=warps, stages=stages,
            factored=_factored(case, "dk", value_dim),
        ),
        Tiles(
            rows=other_rows, keys=other_rows, head_dim=head_dim, value_dim=values_block,
            value_blocks=-(-case.value_dim // values_block), warps=other_warps, stages=other_stages,
        ),
    )  # fmt: skip


def fast(case: Case) -> bool:
    """Whether the products are wgmma on bfloat16, for which tiles were chosen by measurement."""
    return case.dtype == "bfloat16" and not ragged(case)


def _factored(case: Case, kernel: str, dim: int) -> bool:
    """What `FACTORED` says of a kernel whose states have all columns of that dim."""
    return fast(case) and FACTORED[kernel][_width(dim)]


def _gradient_warps(case: Case, width: int) -> int:
    """Eight where momentum's two states of 128 columns lie beside a chunk of the backward: they make products
    twice, and still take two thirds of the time of four, which spill."""
    return (4, 8 if _two_states(case) else 4, 8)[width]


def _two_states(case: Case) -> bool:
    """Whether momentum's kernels of bfloat16 hold S and P in float32, since no chunk forgets."""
    return case.spec.kind == "momentum" and not forgotten(case.spec.beta, FAST_ROWS, "bf16")


def _one_state(case: Case) -> bool:
    """Whether the scan is one in bfloat16 that holds S alone in float32."""
    return fast(case) and case.spec.causal and not _two_states(case)


def _state(case: Case, whole: int, tf32: bool) -> tuple[int, int, int]:
    """Rows of a chunk, columns of the dim that programs share, and warps, where the states of a program have
    all columns of the other dim.

    In bfloat16 64 rows and four warps, as many rows as a warp group multiplies at once: Triton has eight
    warps make most products of 64 rows twice. At dims past 128 the states would spill too much of themselves.
    """
    width = _width(whole)
    if case.dtype == "float32" and not tf32:
        return ((32, 32, 8), (16, 16, 8), (16, 16, 8))[width]
    if ragged(case):
        return ((32, 32, 2), (16, 32, 2), (16, 16, 2))[width]
    if case.dtype != "bfloat16":  # float16 is multiplied as tf32 too
        return ((32, 64, 8), (32, 32, 8), (16, 32, 8))[width]
    return FAST_ROWS, 64, (4, 4, 8)[width]


def softmax_gradient_tiles(case: Case, *, by_keys: bool) -> Tiles:
    """Those of the kernel of dq, or of dk and dv (`by_keys`), which hold twice as much."""
    head_dim, value_dim = padded(case.head_dim), padded(case.value_dim)
    width = _width(head_dim, value_dim)
    if case.dtype == "float32":  # on the ordinary cores two stages spill
        own, others, warps, stages = ((32, 32, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1))[width]
    elif ragged(case):
        own, others, warps, stages = ((32, 32, 2, 2), (16, 16, 2, 2), (16, 16, 4, 2))[width]
    elif width == 2:
        # Blocks of 32, which no wgmma takes: with 64 keys Triton 3.6 made a dk that is wrong at head_dim 200
        # and value_dim 40 on a card, and right in the interpreter.
        own, others, warps, stages = 32, 32, 4, 2
    elif by_keys:
        own, others, warps, stages = ((128, 32, 4, 3), (64, 32, 4, 3))[width]
    else:
        own, others, warps, stages = ((64, 64, 4, 3), (128, 64, 8, 3))[width]
    return Tiles(
        rows=others if by_keys else own, keys=own if by_keys else others, head_dim=head_dim,
        value_dim=value_dim, value_blocks=1, warps=warps, stages=stages,
    )  # fmt: skip
