"""A sequence over 1 to 4 ranks of gloo against the float64 oracle, at even and uneven splits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest

from mtbench import AttentionSpec, Case
from mtbench.frameworks import load_framework
from mtbench.measure.clocks import Sampling
from mtbench.ranks.group import leave
from mtbench.registry import load_backend
from mtbench.spec import ATTENTIONS, DTYPES
from mtbench.sweep import measure
from tests.ranks.gloo import Ranks

pytestmark = pytest.mark.torch


def the_case(kind: str, ranks: int, causal: bool = True, **sizes: Any) -> Case:
    """Small, of odd sizes, gradients included."""
    spec = AttentionSpec(kind=kind, causal=causal, beta=sizes.pop("beta", 0.9), gamma=0.7)  # type: ignore[arg-type]
    sizes = {"batch": 2, "heads": 3, "seq_len": 150, "head_dim": 7, "value_dim": 5} | sizes
    return Case(spec=spec, mode="forward_backward", world_size=ranks, **sizes)


def uneven(ranks: int, n: int) -> tuple[int, ...]:
    """The first ones have one position, and the next more."""
    lengths = [1, 80, 3][: ranks - 1]
    return (*lengths, n - sum(lengths))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_split_agrees_with_the_oracle(count: int) -> None:
    """In one test, so that the processes start once."""
    with Ranks(count) as group:
        for kind, causal in itertools.product(ATTENTIONS, (True, False)):
            for lengths in (None, uneven(count, 150)[:: 1 if causal else -1]):
                group.judge(the_case(kind, count, causal), "chunked", lengths=lengths)
        if count == 3:
            for kind, dtype in itertools.product(ATTENTIONS, DTYPES[1:]):
                group.judge(the_case(kind, count, batch=1, dtype=dtype), "chunked")
            for beta in (0.0, 0.999):
                group.judge(the_case("momentum", count, batch=1, beta=beta), "chunked")
        if count == 2:
            group.judge(the_case("momentum", count, batch=1, heads=1), "chunked")
            for groups in (2, 5):
                group.judge(the_case("momentum", count), "chunked", groups=groups)
        check_what_is_sent(group, count)


def check_what_is_sent(group: Ranks, count: int) -> None:
    """States do not grow with the length, and keys do."""
    sent = {
        (kind, n): [bytes_ for bytes_, _ in group.outputs(the_case(kind, count, seq_len=n), "chunked")[1]]
        for kind in ATTENTIONS
        for n in (120, 480)
    }
    pairs, d, e = 6, 7, 5
    for kind, sums in (("linear", 1), ("momentum", 2)):
        state = 4 * pairs * (sums * d * e + d)
        assert sent[kind, 120] == sent[kind, 480] == [2 * (count - 1) * state] * count
    # Keys and values forward and backward, to all but oneself; their gradients in float32 to all, and home.
    keys = 4 * pairs * (d + e) * 120
    assert sum(sent["softmax", 120]) == (keys * (3 * count - 2) if count > 1 else 0)
    assert sum(sent["softmax", 480]) == 4 * sum(sent["softmax", 120])


def test_a_nan_of_a_later_rank_reaches_no_earlier_one() -> None:
    """Nothing of another rank is multiplied by 0."""
    from mtbench.registry import import_part

    states = import_part("backends.distributed.states")
    import torch

    every = torch.ones(3, 7)
    every[2] = torch.nan
    found = states.carried(every, {0: 5, 1: 0}, 0.5, 3, True)
    assert torch.isfinite(found).all()
    # S = 1 + 1 + c(5), P = 1 + 2^-5, z = 2
    assert found.tolist() == pytest.approx([2 + 0.5 * (1 - 2**-5)] * 3 + [1 + 2**-5] * 3 + [2.0])
    assert states.carried(every, {}, 0.5, 3, True) is None


@pytest.mark.triton
def test_the_triton_kernels_as_the_local_part() -> None:
    """Interpreted, so that what runs on cards is judged without one."""
    with Ranks(2) as group:
        sizes = {"batch": 1, "heads": 2, "seq_len": 200, "head_dim": 16, "value_dim": 12}
        group.judge(the_case("momentum", 2, **sizes), "fused", groups=2)
        group.judge(the_case("softmax", 2, **sizes | {"seq_len": 96}), "fused")


def test_parts_are_as_even_as_grains_allow() -> None:
    from mtbench.registry import import_part

    places = import_part("backends.distributed.places")
    for n in (1, 5, 127, 128, 1000, 4096):
        for parts in (1, 2, 3, 7):
            lengths = places.evenly(n, parts)
            assert sum(lengths) == n
            assert max(lengths) - min(lengths) <= 1
            if n >= 128 * parts:
                whole = places.evenly(n, parts, 128)
                assert sum(whole) == n
                assert all(length > 0 and length % 128 == 0 for length in whole[:-1])
                assert whole[-1] > 0
            held = sorted(piece for rank in range(parts) for piece in places.pieces_of(n, parts, rank))
            assert np.concatenate([np.arange(a, b) for a, b in held]).tolist() == list(range(n))


def test_what_the_ranks_do_is_the_rows_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row on a CPU is noisy where others take it."""
    told: list[list[str]] = []

    class Told(measure.Watch):
        def __init__(self, device: str, processes: Sequence[int] = ()) -> None:
            told.extend(psutil.Process(process).cmdline() for process in processes)
            super().__init__(device, processes)

    monkeypatch.setattr(measure, "Watch", Told)
    sampling = Sampling(least=3, least_s=0.0, limit_s=0.0, warmup_s=0.0)
    measurer = measure.Measurer(load_backend("torch-distributed"), load_framework("torch"), "cpu")
    try:
        row = measurer.measure(Case(world_size=2, seq_len=32), "chunked", sampling, lambda stage: None)
    finally:
        leave()
    assert row.status == "ok", row.reason
    assert len(told) == 2
    assert all("mtbench.ranks.process" in words for words in told)
