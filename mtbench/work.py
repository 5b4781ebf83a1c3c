"""How much a case asks for, by its definition: the numbers that rates are made of."""

from __future__ import annotations

from collections.abc import Mapping

from mtbench.floor import floor_bytes
from mtbench.spec import Case, Mode

__all__ = ["intensity", "operations", "tokens"]

_PAIR: Mapping[Mode, tuple[int, int]] = {"forward": (2, 2), "forward_backward": (8, 6)}
"""Operations on a pair of a query and a key, for each element of head_dim and of value_dim. Forward: a score
(q k) and its part of the output (p v). Backward: the score again (q k), dp (do v), dv (p do), dq (ds k) and
dk (ds q). The score is reckoned again, as the floor of memory has no N x N array."""
_STATE: Mapping[str, Mapping[Mode, tuple[int, int]]] = {
    "linear": {"forward": (2, 2), "forward_backward": (6, 6)},
    "momentum": {"forward": (4, 2), "forward_backward": (10, 6)},
}
"""Operations on each of the head_dim x value_dim entries of a state, for a key and for a query.

Linear, forward: s += k v (2), and a query reads s (2). Backward: a query reads s, which was kept, for dq (2)
and adds q do to ds (2); a key reads ds for dk and for dv (4). Momentum has m = beta m + k v (3) and
s += m (1) for a key, gamma being a factor on v, and backward dm = beta dm + ds (2) beside what linear has."""


def tokens(case: Case) -> int:
    """Queries of a call.

    >>> tokens(Case(batch=2, seq_len=512))
    1024
    """
    return case.batch * case.seq_len


def operations(case: Case) -> int:
    """The floating-point operations that a call needs at the least, whatever its form does.

    Counted are the products and the sums of matrices, of real keys alone; not the exponentials, the feature
    map, the normaliser and the scaling, which are less by a factor of head_dim. Softmax needs a product for
    each pair that the mask leaves, about half of N x N where it is causal. Linear and momentum attention need
    the recurrence, or the pairs where the sequence is so short that those are fewer: a chunked form lies
    between the two, and never below both. Momentum without beta, and momentum that is not causal, weighs the
    keys and is linear attention else.

    >>> from mtbench.spec import AttentionSpec
    >>> case = Case(spec=AttentionSpec(kind="softmax"), batch=1, heads=1, seq_len=2, head_dim=8)
    >>> operations(case) == 3 * 2 * (8 + 8)
    True
    """
    spec, n, keys = case.spec, case.seq_len, case.key_lengths
    of_head_dim, of_value_dim = _PAIR[case.mode]
    pairs = case.heads * sum(_below(n, m) if spec.causal else n * m for m in keys)
    by_pairs = pairs * (of_head_dim * case.head_dim + of_value_dim * case.value_dim)
    if spec.kind == "softmax":
        return by_pairs
    weighs_keys = spec.kind == "momentum" and (spec.beta == 0 or not spec.causal)
    a_key, a_query = _STATE["linear" if weighs_keys else spec.kind][case.mode]
    entries = case.head_dim * case.value_dim
    by_state = entries * (a_key * case.kv_heads * sum(keys) + a_query * case.heads * n * case.batch)
    return min(by_pairs, by_state)


def intensity(case: Case) -> float:
    """The least operations of a call over the least bytes that it moves, FLOP/byte."""
    return operations(case) / floor_bytes(case)


def _below(n: int, m: int) -> int:
    """Pairs of a query and a key of the first m that is not after it."""
    least = min(n, m)
    return least * (least + 1) // 2 + (n - least) * m
