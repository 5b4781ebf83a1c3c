"""The Long Range Arena's tasks that are read from a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtbench import BadInput
from mtbench.training.settings import Schedule
from mtbench.training.tasks import load_task
from tests.training.sequences import dashes, opened, planned, reviews


def everything(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> list[tuple[bytes, int]]:
    """What is trained on in a pass, and then what is held out."""
    task = opened(name, folder, monkeypatch)
    size, seq_len = task.presets["paper"].size, 1024
    schedule = Schedule(epochs=1, iterations=count, batch=1, seq_len=seq_len, evaluation_batches=100)
    found = []
    for held_out in (False, True):
        data = task.batches(schedule, size, seed=0, epoch=0, held_out=held_out)
        assert not isinstance(data, list | tuple)
        for tokens, lengths, values in zip(data["tokens"], data["lengths"], data["values"], strict=True):
            found.append((tokens[0, : lengths[0]].tobytes(), int(values[0])))
    return found


def test_reviews_are_read_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = everything("text", tmp_path, monkeypatch, 24)
    assert len(found) == 48
    assert sorted(found[:24]) == sorted(found[24:])  # the same were written as both parts
    for text, value in found:
        assert text.startswith(b"A good film" if value else b"A bad film")


def test_images_are_read_pixel_by_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = everything("pathfinder", tmp_path, monkeypatch, 16)
    assert len(found) == 16 + 2
    assert len(set(found)) == 18  # none is in both
    for pixels, value in found:
        assert len(pixels) == 1024
        assert (pixels[0] >= 200) == bool(value)
        assert len(set(pixels)) == 1


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def other_size(folder: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save(folder / "imgs" / "0" / "sample_3.png")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("text", None, "the task text needs --data DIR, the folder aclImdb"),
        ("text", without("test/neg"), r"has no test/neg/\*.txt"),
        ("pathfinder", None, "the task pathfinder needs --data DIR, a folder such as"),
        ("pathfinder", without("metadata"), r"has no metadata/\*.npy"),
        ("pathfinder", without("imgs"), "sample_0.png cannot be read as an image"),
        ("pathfinder", other_size, "sample_3.png has 8 x 8 pixels, and 32 x 32 are read"),
        (
            "pathfinder",
            lambda folder: (folder / "metadata" / "1.npy").write_text("imgs/0 a.png 1\n"),
            "1.npy, line 1: not a folder, a file, a number and a class",
        ),
    ],
)
def test_without_its_data_a_task_says_what_to_put_where(
    name: str, change: Callable[[Path], None] | None, told: str, tmp_path: Path
) -> None:
    data = None
    if change is not None:
        folder = {"text": reviews, "pathfinder": dashes}[name](tmp_path / "data")
        change(folder)
        data = str(folder)

    def made() -> None:
        load_task(name).open(data).shared(planned(name, data))

    with pytest.raises(BadInput, match=told):
        made()


def test_bytes_that_are_padding_are_left_out(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    (folder / "train" / "pos" / "0_7.txt").write_bytes(b"a\0b")
    rows = load_task("text").open(str(folder)).part("train", 10)  # type: ignore[attr-defined]
    at = int(np.flatnonzero(rows.lengths == 2)[0])
    assert rows.part(at, 1).symbols.tobytes() == b"ab"


def test_a_part_of_the_test_reviews_is_of_both_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that always says the same would be right of all of one class."""
    task = opened("text", tmp_path, monkeypatch)
    schedule = Schedule(epochs=1, iterations=1, batch=4, seq_len=64, evaluation_batches=2)
    data = task.batches(schedule, task.presets["short"].size, seed=0, epoch=0, held_out=True)
    assert not isinstance(data, list | tuple)
    assert data["there"].all()
    assert set(data["values"].ravel().tolist()) == {0, 1}
