"""How much a case asks for, by its definition: the numbers that rates are made of."""

from __future__ import annotations

from mtbench.spec import Case

__all__ = ["operations", "tokens"]

_STATE = {"linear": (2, 2), "momentum": (5, 2)}
"""Operations on an entry of the state that a key and a query ask for. Linear: a key's outer product is added
(2). Momentum: it is added to beta m (3), and gamma m to s (2). A query reads s (2)."""
_WITH_BACKWARD = {"softmax": 3.5, "linear": 3.0, "momentum": 3.0}
"""Over the forward: two products for each of the forward's, and for softmax the scores again."""


def tokens(case: Case) -> int:
    """Queries of a call.

    >>> tokens(Case(batch=2, seq_len=512))
    1024
    """
    return case.batch * case.seq_len


def operations(case: Case) -> float:
    """Floating-point operations of a call by the attention's definition, whatever its form does: products of
    matrices alone, for softmax over the pairs that the mask leaves, for linear and momentum as a recurrence.

    >>> from mtbench.spec import AttentionSpec
    >>> case = Case(spec=AttentionSpec(kind="softmax"), batch=1, heads=1, seq_len=2, head_dim=8)
    >>> operations(case) == 3 * 2 * (8 + 8)
    True
    """
    kind, n = case.spec.kind, case.seq_len
    keys = case.key_lengths
    if kind == "softmax":
        pairs = sum(_below(n, m) if case.spec.causal else n * m for m in keys)
        forward = 2.0 * case.heads * pairs * (case.head_dim + case.value_dim)
    else:
        key, query = _STATE[kind]
        entries = case.head_dim * case.value_dim
        forward = float(entries * (key * case.kv_heads * sum(keys) + query * case.heads * n * case.batch))
    return forward * (_WITH_BACKWARD[kind] if case.mode == "forward_backward" else 1.0)


def _below(n: int, m: int) -> int:
    """Pairs of a query and a key of the first m that is not after it."""
    least = min(n, m)
    return least * (least + 1) // 2 + (n - least) * m
