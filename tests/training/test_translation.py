"""Translation: its text, its subwords, its batches, and a training to its end, decoded and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench import BadInput
from mtbench.cli import main
from mtbench.training.examined import Examined
from mtbench.training.tasks import load_task
from mtbench.training.tasks.buckets import in_buckets, in_order, widths
from mtbench.training.tasks.parallel_text import read_parallel_text
from mtbench.training.tasks.subwords import END, Subwords, train_subwords
from mtbench.training.trainer import Trainer
from tests.training.sequences import corpus, opened, planned

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("packed", [False, True])
def test_parallel_text_is_read_from_english(tmp_path: Path, packed: bool) -> None:
    found = read_parallel_text(str(corpus(tmp_path, packed=packed)))
    assert found.languages == ("en", "de")
    assert [len(found.splits[split][0]) for split in ("train", "valid", "test")] == [400, 20, 30]
    source, target = (side[0] for side in found.splits["train"])
    assert len(source.split()) == len(target.split())
    assert len(found.digests) == 6


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_an_empty_side_is_left_out(tmp_path: Path, split: str) -> None:
    corpus(tmp_path)
    for language, text in (("en", "one\n\nthree\u2028half\n"), ("de", "eins\nzwei\ndrei\n")):
        (tmp_path / f"{split}.{language}").write_text(text)
    assert read_parallel_text(str(tmp_path)).splits[split] == (
        ("one", "three\u2028half"),
        ("eins", "drei"),
    )


def lacks(name: str, folder: Path) -> None:
    (folder / name).unlink()


def also(name: str, folder: Path) -> None:
    (folder / name).write_text("x\n")


def holds(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: lacks("valid.de", folder), "has no valid.de and no valid.de.gz"),
        (lambda folder: lacks("train.de", folder), "has train.en: it must hold one pair"),
        (lambda folder: also("train.fr", folder), "has train.de, train.en, train.fr: it must hold one pair"),
        (lambda folder: holds("test.de", b"eins\n", folder), "test.en has 30 lines and test.de has 1"),
        (lambda folder: holds("test.de", b"\xff\n", folder), "cannot be read as text in UTF-8"),
        (
            lambda folder: [holds(f"valid.{x}", b"", folder) for x in ("en", "de")],
            "valid.en has no sentences",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, change: Any, told: str) -> None:
    change(corpus(tmp_path))
    with pytest.raises(BadInput, match=told):
        load_task("translation").open(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the task translation needs --data DIR"),
        (("--data", "nowhere"), "--data nowhere is no folder"),
        (("--data", "text"), "no 1000 subwords can be made of this text: Vocabulary size too high"),
    ],
)
def test_without_data_the_command_says_what_to_put_where(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    corpus(tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["mtbench", "train", "--task", "translation", "--preset", "short", "--out", "run", *words]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_subwords_are_the_text_again(tmp_path: Path) -> None:
    lines = read_parallel_text(str(corpus(tmp_path))).splits["train"]
    model = train_subwords((line for side in lines for line in side), 60)
    assert model == train_subwords((line for side in lines for line in side), 60)
    subwords = Subwords(model)
    rows = subwords.encode(lines[1])
    assert subwords.decode(rows) == list(lines[1])
    assert subwords.decode([[1, *row, END, 0, 0] for row in rows]) == list(lines[1])
    assert min(x for row in rows for x in row) > END


def pairs(count: int, longest: int) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, longest + 1, (count, 2))
    return [([5 + n] * int(a), [5 + n] * int(b)) for n, (a, b) in enumerate(sizes)]


def test_batches_of_a_few_shapes_that_an_epoch_does_not_change() -> None:
    data = pairs(500, 40)
    shapes = []
    for epoch in range(3):
        groups = in_buckets(data, 40, batch=4, steps=17, seed=1, epoch=epoch)
        shapes.append([{name: x.shape for name, x in group.items()} for group in groups])
        assert sum(len(group["source"]) for group in groups) == 17
        for group in groups:
            _, batch, width = group["source"].shape
            assert width in widths(40)
            assert batch == 4 * 40 // width
            for side in ("source", "target"):
                lengths = (group[side] > 0).sum(-1)
                np.testing.assert_array_equal(lengths, group[f"{side}_lengths"])
            np.testing.assert_array_equal(group["source"][..., 0], group["target"][..., 0])
            longest = np.maximum(group["source_lengths"], group["target_lengths"])
            assert longest.max() <= width
            assert width == widths(40)[0] or longest.min() > width // 2
    assert shapes[0] == shapes[1] == shapes[2]


def test_each_pair_is_held_out_once() -> None:
    data = pairs(101, 40)
    groups = in_order(data, 40, batch=4, most=10**6)
    places = np.concatenate([group["place"][group["there"]] for group in groups])
    assert sorted(places.tolist()) == list(range(101))
    for group in groups:
        np.testing.assert_array_equal(group["source"][..., 0], 5 + group["place"])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 50])
def test_steps_are_shared_out(steps: int) -> None:
    groups = in_buckets(pairs(200, 64), 64, batch=2, steps=steps, seed=0, epoch=0)
    assert sum(len(group["source"]) for group in groups) == steps
    assert len(groups) == 4 or steps < 4


@pytest.mark.parametrize("name", ["translation", "translation-refined"])
def test_a_training_ends_with_a_translated_test_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a language so regular that some of it is learnt in seconds."""
    opened(name, tmp_path, monkeypatch)
    job = planned(name, str(tmp_path / "text"), "linear", epochs=3, iterations=25, batch=8)
    trainer = Trainer(job, tmp_path / "it.pt", every_s=1e9, shared=tmp_path / "shared")
    rows = list(trainer.run())
    first, last = rows[0], rows[-1]
    assert all(row["examined"] is None for row in rows[:-1])
    assert len(last["loss"]) == 25
    assert np.mean(last["loss"]) < 0.85 * np.mean(first["loss"])
    assert 0 < first["tokens"] < 25 * 8 * 24
    held_out = [row["evaluation"] for row in rows if row["evaluation"]]
    assert held_out[-1]["metric_error"] > 0
    examined = last["examined"]
    assert set(examined["scores"]) == {score.name for score in load_task(name).scores}
    assert examined["scores"]["chrF"] > 5  # what says nothing of it has 0
    assert examined["scores"]["decoded subwords/s"] > 0
    assert "version:" in examined["notes"]["BLEU"]
    assert "en to de" in examined["notes"]["data"]
    for sample in examined["samples"]:
        assert set(sample) == {"source", "reference", "translation"}
        assert len(sample["source"].split()) == len(sample["reference"].split())
    assert Examined.from_dict(examined).to_dict() == examined
