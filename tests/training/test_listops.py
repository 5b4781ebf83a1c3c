"""ListOps: its grammar, its answers by another evaluator, its classes, and what is kept of it."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mtbench import BadInput
from mtbench.caches import cache_folder
from mtbench.training.command import preset_of
from mtbench.training.settings import Schedule
from mtbench.training.tasks import listops
from mtbench.training.tasks.listops import TASK, split
from mtbench.training.tasks.listops_trees import CLOSE, DIGIT, OPERATORS, draw, each
from tests.training.sequences import few_expressions

MEANINGS: dict[int, Callable[[Sequence[int]], int]] = dict(
    zip(OPERATORS, (min, max, lambda a: int(statistics.median(a)), lambda a: sum(a) % 10), strict=True)
)


def evaluated(symbols: Sequence[int]) -> tuple[int, int, list[int]]:
    """The value, the depth and the number of arguments of each operation, by a stack; fails on what the
    grammar has not."""
    stack: list[tuple[int, list[int], int]] = []
    counts: list[int] = []
    done: list[tuple[int, int]] = []
    for symbol in symbols:
        assert not done, "something follows the end"
        if symbol in MEANINGS:
            stack.append((symbol, [], 1))
            continue
        value, depth = symbol - DIGIT, 1
        if symbol == CLOSE:
            operator, arguments, below = stack.pop()
            counts.append(len(arguments))
            value, depth = MEANINGS[operator](arguments), below + 1
        else:
            assert 0 <= value <= 9
        if not stack:
            done.append((value, depth))
            continue
        operator, arguments, deepest = stack.pop()
        stack.append((operator, [*arguments, value], max(deepest, depth)))
    assert not stack
    ((value, depth),) = done
    return value, depth, counts


def test_expressions_are_the_grammars_and_so_are_their_values() -> None:
    found = draw(60, shortest=500, longest=2000, seed=3)
    assert len(found.values) == len(found.lengths) == 60
    for symbols, length, value in zip(each(found), found.lengths, found.values, strict=True):
        told, depth, counts = evaluated(symbols.tolist())
        assert told == value
        assert 500 < len(symbols) == length < 2000
        assert depth <= 10
        assert min(counts) >= 2
        assert max(counts) <= 10


class TooLong(Exception):
    """It would be."""


def by_recursion(rng: random.Random, room: list[int], depth: int = 1) -> tuple[list[int], int]:
    """An expression as the benchmark's text describes it, one part after another, in that much room."""
    room[0] -= 1
    if room[0] < 0:
        raise TooLong
    if depth == 10 or rng.random() > 0.25:
        digit = rng.randrange(10)
        return [DIGIT + digit], digit
    room[0] -= 1
    parts = [by_recursion(rng, room, depth + 1) for _ in range(rng.randint(2, 10))]
    operator = rng.choice(OPERATORS)
    symbols = [operator, *(x for symbols, _ in parts for x in symbols), CLOSE]
    return symbols, MEANINGS[operator]([value for _, value in parts])


@pytest.mark.parametrize(("shortest", "longest", "many"), [(16, 64, 3000), (500, 2000, 1500)])
def test_classes_lengths_and_symbols_are_as_those_of_a_plain_generator(
    shortest: int, longest: int, many: int
) -> None:
    """Shares lie within 4 standard errors of each other; answers are no more even than this: 0 and 9 are more
    frequent, as MIN and MAX make them."""
    rng, plain = random.Random(1), []
    while len(plain) < many:
        try:
            symbols, value = by_recursion(rng, [longest - 1])
        except TooLong:
            continue
        if len(symbols) > shortest:
            plain.append((symbols, value))
    fast = draw(many, shortest=shortest, longest=longest, seed=1)
    classes = np.bincount(fast.values, minlength=10) / many
    wanted = np.bincount([value for _, value in plain], minlength=10) / many
    assert np.abs(classes - wanted).max() < 4 * (2 * 0.16 * 0.84 / many) ** 0.5
    assert classes.min() > 0.05
    assert classes.max() < 0.2
    assert set(classes.argsort()[-2:]) == {0, 9}
    lengths = [len(symbols) for symbols, _ in plain]
    spread = statistics.stdev(lengths)
    assert abs(fast.lengths.mean() - statistics.mean(lengths)) < 4 * spread * (2 / many) ** 0.5
    ours = Counter(fast.symbols.tolist())
    theirs = Counter(x for symbols, _ in plain for x in symbols)
    for symbol in range(DIGIT, CLOSE + 1):
        assert ours[symbol] / ours.total() == pytest.approx(theirs[symbol] / theirs.total(), rel=0.08)


def test_they_are_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_expressions(tmp_path, monkeypatch)
    first = split("train", 64)
    (file,) = cache_folder("listops").iterdir()
    monkeypatch.setattr(listops, "draw", None)  # who makes them again fails
    listops._all.cache_clear()
    again = split("train", 64)
    for name in ("symbols", "lengths", "values"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert len(split("valid", 64).lengths) == 20
    monkeypatch.undo()
    few_expressions(tmp_path, monkeypatch)
    file.write_bytes(file.read_bytes()[:100])  # cut off
    np.testing.assert_array_equal(split("train", 64).symbols, first.symbols)


def test_an_epoch_goes_on_where_the_one_before_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_expressions(tmp_path, monkeypatch)
    schedule = Schedule(epochs=3, iterations=5, batch=20, seq_len=64)
    size = TASK.presets["short"].size
    epochs = [TASK.batches(schedule, size, seed=4, epoch=n) for n in range(3)]
    rows = np.concatenate([data["tokens"].reshape(-1, 64) for data in epochs])
    whole = split("train", 64)
    wanted = sorted(symbols.tobytes() for symbols in each(whole))
    assert sorted(row[row > 0].tobytes() for row in rows) == wanted  # 300: each once
    for data in epochs:
        np.testing.assert_array_equal((data["tokens"] > 0).sum(-1), data["lengths"])
        assert evaluated(data["tokens"][0, 0, : data["lengths"][0, 0]].tolist())[0] == data["values"][0, 0]
    other = TASK.batches(schedule, size, seed=5, epoch=0)["tokens"]
    assert not np.array_equal(other, epochs[0]["tokens"])
    held_out = TASK.batches(schedule, size, seed=4, epoch=0, held_out=True)
    assert held_out["there"].sum() == len(split("test", 64).lengths)
    assert TASK.tokens([epochs[0]]) == (epochs[0]["tokens"] > 0).sum()


def test_too_short_for_it() -> None:
    with pytest.raises(BadInput, match="--seq-len 31: ListOps needs 32"):
        preset_of(TASK, "short", seq_len=31)
