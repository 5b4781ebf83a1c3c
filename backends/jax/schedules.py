"""How the chunked form goes through its chunks, case by case: what was fastest where it was measured
(docs/results/h100-jax-chunked)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mtbench.backend import Requirement
from mtbench.spec import Case

from .arithmetic import Weights, fused

__all__ = ["MERGING", "Schedule", "compiler_options", "schedule"]

AT_ONCE = 1 << 20
"""Positions of all batches and heads that a GPU works on in one step. In smaller ones the intermediates would
lie in its L2, but the kernels are too many and too short: that was slower."""
MOST = 1 << 14
"""Positions a step at most: its chunks' states are put together by a product whose work is the square of
their number."""
SHORT = 1 << 12
"""Positions of a step whose chunks linear attention's forward can halve: in longer ones that square outweighs
the scores saved."""
MERGED_DIMS = (64, 128)
"""The head_dim, and value_dim alike, at which XLA was seen to merge what a schedule with states inside asks
for."""
MERGING = Requirement(distribution="jaxlib", minimum="0.11.2")
"""Whose XLA was seen to merge it. Up to 0.10.0 XLA does not know the option, and refuses it; 0.10.2 to 0.11.1
know it, and what they make of it was neither counted nor timed."""


class Schedule(NamedTuple):
    """How the chunks are gone through."""

    chunk: int
    """C, positions a chunk."""
    chunks: int
    """T, those of a step."""
    weights: Weights = "apart"
    """Where a chunk's scores meet their weights: see `arithmetic.weighted`."""
    states: Literal["apart", "inside"] = "apart"
    """Where keys and queries meet the weights of S and P, and the output its normaliser. Inside the products,
    in bfloat16, is for a compiler that merges all that into a product's own kernel, as XLA does by
    `compiler_options`; without them it moves more bytes than apart."""


def schedule(case: Case, *, merging: bool = False) -> Schedule:
    """The schedule of a case, by its device and sizes. `merging` says that the program will be compiled with
    the `compiler_options` of what is returned: without it, it is the best for a program that is not."""
    if case.device != "cuda":
        return Schedule(chunk=min(64, case.seq_len), chunks=1)
    length = max(1, min(AT_ONCE // (case.batch * case.heads), MOST))
    chunk = min(64 if _gains_by_halves(case, min(length, case.seq_len)) else 128, case.seq_len)
    weights: Weights = "apart"
    if case.dtype == "bfloat16":
        # Linear attention's are 0 and 1, which bfloat16 has.
        weights = "inside" if case.spec.beta else "rounded"
    return Schedule(
        chunk,
        min(max(1, length // chunk), -(-case.seq_len // chunk)),
        weights,
        "inside" if merging and _gains_by_merging(case, chunk) else "apart",
    )


def compiler_options(chosen: Schedule, device: str) -> dict[str, bool | str]:
    """What XLA is to be given with a program of this schedule, and with no other."""
    if chosen.states == "inside" and device == "cuda":
        return {"xla_gpu_experimental_gemm_fusion_v2": True}
    return {}


def _gains_by_halves(case: Case, length: int) -> bool:
    """Whether chunks of 64 are faster than of 128, which are more bytes of states and fewer of scores: where
    there is one state and it is small, and in the forward alone where a step is short."""
    small = not case.spec.beta and max(case.head_dim, case.value_dim) <= 64
    return fused(case) and case.spec.causal and small and (case.mode != "forward" or length <= SHORT)


def _gains_by_merging(case: Case, chunk: int) -> bool:
    """Whether states inside are faster, with the options: in the forward alone, and where XLA merges them."""
    sizes = case.head_dim == case.value_dim and case.head_dim in MERGED_DIMS and chunk in (64, 128)
    return fused(case) and case.spec.causal and case.mode == "forward" and sizes
