"""Parts of a sequence on the Triton kernels, in one process, each with the state that reaches it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge
from mtbench.registry import import_part

pytestmark = pytest.mark.triton


def folded(states: list[Any], gaps: dict[int, int], case: Case, part: Any) -> Any:
    """The rule of `segments`, a term at a time."""
    beta, total = case.spec.beta, None
    for index, gap in gaps.items():
        s, p, z = part.views(states[index].clone())
        if p is not None:
            s += beta * (1 - beta**gap) * p
            p *= beta**gap
        flat = states[index].new_empty(states[index].shape)
        for into, x in zip(part.views(flat), (s, p, z), strict=True):
            if x is not None:
                into.copy_(x)
        total = flat if total is None else total + flat
    return total


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(("kind", "beta"), [("linear", 0.0), ("momentum", 0.9), ("momentum", 0.999)])
def test_parts_make_the_whole(kind: str, beta: float, causal: bool) -> None:
    import torch

    import_part("backends.triton.launch").enter("cpu")
    segments = import_part("backends.triton.segments")
    lengths = (384, 57)  # segments of 256 and 128, and a part that is no whole chunks
    n, ends = sum(lengths), [0, *itertools.accumulate(lengths)]
    spec = AttentionSpec(kind=kind, causal=causal, beta=beta, gamma=0.7)  # type: ignore[arg-type]
    sizes = {"batch": 1, "heads": 1, "seq_len": n, "head_dim": 16, "value_dim": 9}
    case = Case(spec=spec, mode="forward_backward", **sizes)  # type: ignore[arg-type]
    inputs = make_inputs(case)
    parts, arrays = [], []
    for first, last in itertools.pairwise(ends):
        own = case.replace(seq_len=last - first)
        parts.append(segments.Segment(own, reach=n, after=n - last, segments=2))
        arrays.append(
            [
                torch.from_numpy(np.ascontiguousarray(getattr(inputs, name)[:, :, first:last]))
                for name in ("q", "k", "v", "do")
            ]
        )
    every = range(len(parts))
    to_end = {other: sum(lengths[other + 1 :]) for other in every}
    own = [part.sums(k, v) for part, (_, k, v, _) in zip(parts, arrays, strict=True)]
    states = [part.state(sums) for part, sums in zip(parts, own, strict=True)]
    kept = []
    for rank, (part, (q, k, v, _)) in enumerate(zip(parts, arrays, strict=True)):
        before = {other: sum(lengths[other + 1 : rank]) for other in range(rank)} if causal else to_end
        kept.append(part.output(q, k, v, own[rank], folded(states, before, case, part)))
    adjoints = [p.query_gradients(*a, held) for p, a, held in zip(parts, arrays, kept, strict=True)]
    back = [part.state_back(adjoint) for part, adjoint in zip(parts, adjoints, strict=True)]
    grads = []
    for rank, part in enumerate(parts):
        after = {other: sum(lengths[rank + 1 : other]) for other in range(rank + 1, len(parts))}
        last = folded(back, after if causal else dict.fromkeys(every, 0), case, part)
        grads.append(part.key_value_gradients(*arrays[rank], kept[rank], adjoints[rank], last))
    outputs = {
        "o": [held.o for held in kept],
        "dq": [adjoint.dq for adjoint in adjoints],
        "dk": [dk for dk, _ in grads],
        "dv": [dv for _, dv in grads],
    }
    whole = {name: torch.cat(found, 2).numpy() for name, found in outputs.items()}
    for name, agreement in Judge(case, inputs).agreement("fused", whole).items():
        assert agreement.passes, f"{name}: {agreement}"


def test_a_part_before_others_is_whole_chunks() -> None:
    import_part("backends.triton.launch").enter("cpu")
    segments = import_part("backends.triton.segments")
    with pytest.raises(ValueError, match="a part of 100 positions before others must be whole 128s"):
        segments.Segment(Case(seq_len=100), reach=200, after=100)
