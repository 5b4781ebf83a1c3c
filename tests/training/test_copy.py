"""The copy task's data, its loss, and its settings."""

from __future__ import annotations

import numpy as np
import pytest

from mtbench import BadInput
from mtbench.training.command import preset_of
from mtbench.training.settings import Optimization
from mtbench.training.tasks.copy import TASK

PAPER = TASK.presets["paper"]


def one_epoch(seed: int = 0, epoch: int = 0, held_out: bool = False) -> dict[str, np.ndarray]:
    data = TASK.batches(PAPER.schedule, PAPER.size, seed=seed, epoch=epoch, held_out=held_out)
    return dict(data)


def test_a_sequence_is_a_word_a_zero_the_word_and_zeros() -> None:
    data = one_epoch()
    assert data["tokens"].shape == (100, 64, 128)
    lengths = set()
    for tokens, targets, counts in zip(*(data[k].reshape(-1, 128) for k in data), strict=True):
        n = int(np.argmin(tokens))  # the first zero
        lengths.add(n)
        word = tokens[:n]
        assert set(word) <= set(range(1, 11))
        assert np.array_equal(tokens[n + 1 : 2 * n + 1], word)
        assert not tokens[n]
        assert not tokens[2 * n + 1 :].any()
        assert np.array_equal(targets[:-1], tokens[1:])
        assert np.flatnonzero(counts).tolist() == list(range(n - 1, 2 * n))
    assert lengths == set(range(32, 63))


def test_every_symbol_is_as_likely() -> None:
    tokens = one_epoch()["tokens"]
    share = np.bincount(tokens[tokens > 0], minlength=11)[1:] / (tokens > 0).sum()
    assert np.abs(share - 0.1).max() < 0.005


def test_data_is_the_seeds_and_the_epochs_alone() -> None:
    first = one_epoch(1, 2)["tokens"]
    assert np.array_equal(first, one_epoch(1, 2)["tokens"])
    for other in (one_epoch(1, 3), one_epoch(2, 2), one_epoch(held_out=True)):
        assert not np.array_equal(first[:20], other["tokens"][:20])
    held_out = one_epoch(1, 0, held_out=True)["tokens"]
    assert np.array_equal(held_out, one_epoch(7, 5, held_out=True)["tokens"])
    assert held_out.shape == (20, 64, 128)


@pytest.mark.torch
def test_loss_and_accuracy_are_taken_where_the_word_can_be_known() -> None:
    import torch

    from mtbench.transformer.losses import counted_cross_entropy

    data = {k: torch.from_numpy(v[0]) for k, v in one_epoch().items()}
    logits = torch.zeros(64, 128, 11)
    loss, accuracy = counted_cross_entropy(logits, data["targets"], data["counts"])
    assert float(loss) == pytest.approx(np.log(11))
    right = 20 * torch.nn.functional.one_hot(data["targets"], 11).float()
    wrong = right.roll(1, -1)
    counted = data["counts"].bool()[..., None]
    loss, accuracy = counted_cross_entropy(
        torch.where(counted, right, wrong), data["targets"], data["counts"]
    )
    assert float(accuracy) == 1.0
    assert float(loss) < 1e-6
    loss, accuracy = counted_cross_entropy(
        torch.where(counted, wrong, right), data["targets"], data["counts"]
    )
    assert float(accuracy) == 0.0


def test_the_papers_settings() -> None:
    """As published; the claims are tested by a run with these alone."""
    assert (PAPER.schedule.epochs, PAPER.schedule.iterations, PAPER.schedule.batch) == (100, 100, 64)
    assert PAPER.schedule.seq_len == PAPER.size.max_len == 128
    assert (PAPER.size.d_model, PAPER.size.layers, PAPER.size.heads, PAPER.size.head_dim) == (256, 4, 8, 32)
    assert (PAPER.size.feed_forward, PAPER.size.dropout, PAPER.size.vocabulary) == (1024, 0.1, 11)
    assert PAPER.optimization == Optimization(lr=1e-3, weight_decay=0.01, clip=1.0, drop_epoch=30, drop=10)
    momenta = TASK.momenta
    assert (momenta.beta, momenta.gamma, momenta.connection, momenta.step) == (0.1, 0.6, 0.99, 0.99)


@pytest.mark.parametrize("seq_len", [8, 9, 10, 17])
def test_any_length_from_8_on_has_room(seq_len: int) -> None:
    made = preset_of(TASK, "short", seq_len=seq_len)
    data = TASK.batches(made.schedule, made.size, seed=0, epoch=0)
    assert data["counts"].sum(-1).min() >= 3


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("short", {"seq_len": 7}, "needs 8 positions"),
        ("short", {"epochs": 0}, "epochs = 0 must be at least 1"),
        ("short", {"lr": float("nan")}, "lr = nan"),
        ("long", {}, "unknown preset 'long'"),
    ],
)
def test_numbers_that_do_not_do(name: str, changes: dict[str, float], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        preset_of(TASK, name, **changes)
