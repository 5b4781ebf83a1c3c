"""What the forms do with odd inputs. Imports no torch, so that it can be listed without."""

from __future__ import annotations

from mtbench.backend import NAN_IN_K, NAN_IN_V, SCORES_ROUNDED, Caveat

__all__ = ["CAVEATS"]

CAVEATS = (
    Caveat(
        what=NAN_IN_V,
        reason=(
            "causal, or with lengths: a matrix product multiplies it by a weight of 0, for the rows of its "
            "chunk and in the other forms for all; the recurrent form does so with lengths alone"
        ),
        applies=lambda case, form: case.lengths is not None or (case.spec.causal and form != "recurrent"),
    ),
    Caveat(
        what=NAN_IN_K,
        reason=(
            "momentum, parallel and causal: the scores are multiplied by the masked weights; to choose them "
            "would take another pass over seq_len x seq_len numbers"
        ),
        applies=lambda case, form: case.spec.kind == "momentum" and form == "parallel" and case.spec.causal,
    ),
    Caveat(
        what=NAN_IN_K,
        reason="sdpa on a CPU, causal or with lengths: PyTorch's kernel lets it through its mask",
        applies=lambda case, form: (
            form == "sdpa" and case.device == "cpu" and (case.spec.causal or case.lengths is not None)
        ),
    ),
    Caveat(
        what=NAN_IN_K,
        reason=(
            "chunked, causal, on a GPU, linear and momentum: the sums of 64 chunks of 128 positions make "
            "each other's states in one matrix product, with weights of 0 for the later ones"
        ),
        applies=lambda case, form: (
            case.spec.kind != "softmax"
            and form == "chunked"
            and case.device == "cuda"
            and case.spec.causal
            and case.seq_len >= 256
        ),
    ),
    Caveat(
        what=SCORES_ROUNDED,
        reason=(
            "softmax, parallel and chunked: PyTorch's matrix product returns q k^T in the operands' dtype, "
            "which is off by 1 at 400 in bfloat16 and overflows at 65,504 in float16; float32 operands would "
            "be another, slower product"
        ),
        applies=lambda case, form: (
            case.spec.kind == "softmax" and form in ("parallel", "chunked") and case.dtype != "float32"
        ),
    ),
)
"""Of the forms themselves, whether they are compiled or not."""
