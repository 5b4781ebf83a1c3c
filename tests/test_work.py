"""The work of a case against the mathematics: products counted one by one."""

from __future__ import annotations

import dataclasses

import pytest

from mtbench.floor import floor_bytes
from mtbench.spec import AttentionSpec, Case
from mtbench.work import intensity, operations, tokens

SIZES = {"batch": 2, "heads": 4, "seq_len": 64, "head_dim": 16, "value_dim": 8}
PAIRS = 2 * 4 * 64 * 64
CAUSAL_PAIRS = 2 * 4 * 64 * 65 // 2
ENTRIES = 2 * 4 * 64 * 16 * 8
"""Of the states, over all tokens."""


def case(kind, mode="forward", sizes=SIZES, **spec):
    return Case(spec=AttentionSpec(kind=kind, **spec), mode=mode, **sizes)


def test_softmax_is_two_products_a_pair_and_five_with_the_backward():
    assert operations(case("softmax", causal=False)) == PAIRS * 2 * (16 + 8)
    assert operations(case("softmax")) == CAUSAL_PAIRS * 2 * (16 + 8)
    # q k, p v; again q k, then do v, p do, ds k, ds q
    both = 2 * (16 + 8 + 16 + 8 + 8 + 16 + 16)
    assert operations(case("softmax", "forward_backward")) == CAUSAL_PAIRS * both
    square = {**SIZES, "value_dim": 16}
    ratio = operations(case("softmax", "forward_backward", square)) / operations(
        case("softmax", sizes=square)
    )
    assert ratio == 3.5


def test_linear_and_momentum_are_a_recurrence():
    assert operations(case("linear")) == 4 * ENTRIES
    assert operations(case("linear", causal=False)) == 4 * ENTRIES
    assert operations(case("linear", "forward_backward")) == 12 * ENTRIES
    assert operations(case("momentum")) == 6 * ENTRIES
    assert operations(case("momentum", "forward_backward")) == 16 * ENTRIES


@pytest.mark.parametrize("spec", [{"beta": 0.0}, {"causal": False}])
def test_momentum_that_weighs_keys_alone_is_linear(spec):
    assert operations(case("momentum", **spec)) == 4 * ENTRIES


@pytest.mark.parametrize("kind", ["linear", "momentum"])
def test_a_short_sequence_needs_its_pairs_alone(kind):
    short = {"batch": 1, "heads": 1, "seq_len": 8, "head_dim": 64}
    assert operations(case(kind, sizes=short)) == operations(case("softmax", sizes=short)) == 36 * 2 * 128


def test_padded_keys_are_no_work_and_grouped_heads_share_a_state():
    padded = case("softmax", sizes={"batch": 2, "heads": 1, "seq_len": 8, "head_dim": 4, "lengths": (8, 3)})
    pairs = sum(min(i + 1, m) for m in (8, 3) for i in range(8))
    assert operations(padded) == pairs * 2 * (4 + 4)
    grouped = dataclasses.replace(case("linear"), kv_heads=2)
    assert operations(grouped) == (2 * 2 + 2 * 4) * ENTRIES / 4


def test_intensity_is_operations_over_bytes():
    one = case("linear")
    assert intensity(one) == operations(one) / floor_bytes(one)
    assert tokens(one) == 128
