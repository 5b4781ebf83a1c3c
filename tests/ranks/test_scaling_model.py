"""The model of scripts/scaling_model.py on runs whose constants are known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from scripts import scaling_model

US = 1e-6


def time(
    kind: str, n: int, ranks: int, seconds: float, sent: float = 0, mode: str = "forward"
) -> dict[str, Any]:
    return {
        "what": "time", "kind": kind, "mode": mode, "seq_len": n, "ranks": ranks, "groups": None,
        "median_ms": seconds * 1e3, "sent_bytes": sent,
    }  # fmt: skip


@pytest.fixture
def found() -> dict[str, Any]:
    """Momentum takes 50 us and 5 ns a position, softmax 30 us and 2 ps a pair; a state is 500 kB."""
    rows = [time("momentum", n, 1, 50 * US + 5e-9 * n) for n in (1 << 16, 1 << 18, 1 << 20)]
    rows += [time("softmax", n, 1, 30 * US + 2e-12 * n * n) for n in (1 << 14, 1 << 16)]
    rows += [time("momentum", 1 << 20, 2, 3e-3, 500_000), time("softmax", 1 << 16, 2, 5e-3, (1 << 16) * 2048)]
    rows += [{"what": "gather", "bytes": b, "median_ms": 0.02 + b / 300e6} for b in (1 << 14, 1 << 20)]
    rows += [{"what": "pass", "bytes": 300_000_000, "median_ms": 1.0}]
    rows += [{"what": "longest", "mode": "forward", "ranks": 1, "seq_len": 8 << 20}]
    return {"rows": rows}


def test_the_constants_come_back(found: dict[str, Any]) -> None:
    model = scaling_model.fitted(found, scaling_model.Link(10 * US, 50e9), 5 * US)
    assert model.work["momentum", "forward"] == pytest.approx((50 * US, 5e-9), rel=1e-6)
    assert model.work["softmax", "forward"] == pytest.approx((30 * US, 2e-12), rel=1e-6)
    assert model.state_bytes["momentum", "forward"] == 500_000
    assert model.key_bytes["forward"] == 4096
    assert model.inside.bytes_per_s == pytest.approx(300e9)
    assert model.start == pytest.approx(15 * US, rel=0.01)
    assert model.gather(2, 0) == pytest.approx(20 * US, rel=0.01)


def test_states_are_hidden_until_there_are_many(found: dict[str, Any]) -> None:
    model = scaling_model.fitted(found, scaling_model.Link(10 * US, 50e9), 5 * US)
    n = 1 << 20
    # On two devices half a state takes 21 us, and the shortest work that hides it 0.4 ms.
    assert model.together("momentum", "forward", n, 2) == pytest.approx(50 * US + 5e-9 * n / 2)
    # On 1,024 a ring of 1,023 hops of 15 us is nearly all that is left of it, and ten steps are not.
    slow, fast = (model.together("momentum", "forward", n, 1024, doubling=x) for x in (False, True))
    assert slow == pytest.approx(2 * 1023 * 15 * US, rel=0.05)
    assert fast < slow / 40
    efficiencies = [model.efficiency("momentum", "forward", n, w) for w in scaling_model.DEVICES]
    assert efficiencies[0] == 1
    assert all(a >= b for a, b in pairwise(efficiencies))


def test_a_ring_is_as_slow_as_the_slower_of_its_scores_and_its_keys(found: dict[str, Any]) -> None:
    model = scaling_model.fitted(found, scaling_model.Link(10 * US, 50e9), 5 * US)
    n = 1 << 20
    work = 2e-12 * n * n
    assert model.together("softmax", "forward", n, 2) == pytest.approx(30 * US + work / 2)
    keys = model.start + 10 * US + 4096 * n / 1024 / 50e9
    step = work / 1024**2
    assert keys > step
    assert model.together("softmax", "forward", n, 1024) == pytest.approx(30 * US + step + 1023 * keys)


def test_what_does_not_fit_is_said_and_two_are_held(found: dict[str, Any]) -> None:
    model = scaling_model.fitted(found, scaling_model.Link(10 * US, 50e9), 5 * US)
    rows = {(r["kind"], r["seq_len"], r["devices"]): r for r in scaling_model.predictions(model)}
    assert not rows["momentum", 1_000_000_000, 64]["fits"]
    assert rows["momentum", 1_000_000_000, 128]["fits"]
    held = {row["kind"]: row for row in scaling_model.held(model, found)}
    assert held["momentum"]["ratio"] == pytest.approx((50 * US + 5e-9 * (1 << 19)) / 3e-3)
    with pytest.raises(SystemExit, match="no `gather`"):
        scaling_model.fitted({"rows": []}, scaling_model.Link(0, 1), 0)
