"""The image tasks: their files, their batches, bits per dimension, and their claims."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench import BadInput
from mtbench.cli import main
from mtbench.training.command import resume_training
from mtbench.training.folder import TrainingFolder
from mtbench.training.settings import Job, Kernels, Optimization, Schedule
from mtbench.training.tasks import load_task
from mtbench.training.tasks.digits import TASK as DIGITS
from mtbench.training.tasks.image_settings import sized
from mtbench.training.tasks.mnist import TASK as MNIST
from mtbench.transformer.config import ModelConfig
from tests.training.images import cifar_folder, idx, mnist_folder, opened

SIZE = sized(784, d_model=16, layers=1, heads=2, head_dim=8, feed_forward=16, dropout=0.0)


def schedule(batch: int, iterations: int = 2, seq_len: int = 784) -> Schedule:
    return Schedule(epochs=1, iterations=iterations, batch=batch, seq_len=seq_len, evaluation_batches=10**6)


def test_an_epoch_sees_every_image_once_and_another_order_than_the_next(tmp_path: Path) -> None:
    task = opened("mnist", tmp_path)
    made = schedule(10, 3)
    first, again, other, seeded = (
        task.batches(made, SIZE, seed=seed, epoch=epoch)["pixels"]
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    everything = {image.tobytes() for image in first.reshape(30, -1)}
    assert len(everything) == 30
    for one in (other, seeded):
        assert not np.array_equal(one, first)
        assert {image.tobytes() for image in one.reshape(30, -1)} == everything
    assert len(task.batches(schedule(10, 7), SIZE, seed=0, epoch=0)["pixels"]) == 7  # beyond one pass


def test_what_is_held_out_is_the_whole_test_set(tmp_path: Path) -> None:
    task = opened("mnist", tmp_path)
    data = task.batches(schedule(3), SIZE, seed=0, epoch=0, held_out=True)
    assert data["pixels"].shape == (3, 3, 784)
    assert data["there"].sum() == 7
    found = data["pixels"][data["there"]]
    assert found.tobytes() == (tmp_path / "t10k-images-idx3-ubyte").read_bytes()[16:]


def test_colours_of_a_pixel_follow_each_other(tmp_path: Path) -> None:
    task = opened("cifar10", tmp_path)
    record = np.frombuffer((tmp_path / "test_batch.bin").read_bytes(), np.uint8)[:3073]
    held_out = task.batches(schedule(2, seq_len=3072), SIZE, seed=0, epoch=0, held_out=True)
    image = held_out["pixels"][0, 0]
    assert image.reshape(1024, 3).T.tobytes() == record[1:].tobytes()
    train = task.batches(schedule(10, 1, seq_len=3072), SIZE, seed=0, epoch=0)["pixels"]
    assert len({x.tobytes() for x in train[0]}) == 10  # two of each of the five files


def test_digits_come_with_their_package() -> None:
    task = DIGITS.open(None)
    data = task.batches(schedule(50, seq_len=64), SIZE, seed=0, epoch=0, held_out=True)
    assert data["there"].sum() == 297
    levels = set(np.unique(data["pixels"]))
    assert len(levels) == 17
    assert {0, 255} <= levels
    assert task.fingerprints() == DIGITS.open(None).fingerprints() != {}


@pytest.mark.torch
def test_bits_are_those_of_the_model_and_each_image_has_its_own(tmp_path: Path) -> None:
    """Held against the distribution of each pixel, one at a time: 256 shares that sum to 1."""
    import torch

    from mtbench.transformer.logistics import level_log_probability
    from mtbench.transformer.plain import plain_attention

    task = opened("mnist", tmp_path)
    torch.manual_seed(0)
    model = task.model(ModelConfig(size=SIZE), plain_attention).eval()
    data = task.batches(schedule(5), SIZE, seed=0, epoch=0, held_out=True)
    batch = {name: torch.from_numpy(array[1]) for name, array in data.items()}
    assert batch["there"].tolist() == [True, True, False, False, False]
    with torch.no_grad():
        nats, bits = task.evaluated(model, batch)
        loss, metric = task.loss(model, {"pixels": batch["pixels"][:2]})
        pixels = batch["pixels"][:2].long()
        start = torch.full((2, 1), 256)
        encoded = model.encoded(torch.cat((start, pixels[:, :-1]), 1))
        every = level_log_probability(model.head(encoded)[:, :, None], torch.arange(256))
    assert (every.exp().sum(-1) - 1).abs().max() < 1e-5
    one_by_one = -every.gather(-1, pixels[..., None])[..., 0].double().mean(-1)
    assert nats.tolist() == pytest.approx(one_by_one.tolist(), rel=1e-5)
    assert bits.tolist() == pytest.approx([x / math.log(2) for x in nats.tolist()])
    assert loss.item() == pytest.approx(nats.mean().item(), rel=1e-5)
    assert metric.item() == pytest.approx(bits.mean().item(), rel=1e-5)


@pytest.mark.torch
def test_bits_a_dimension_by_hand(tmp_path: Path) -> None:
    """A head that sees nothing says of every pixel: one logistic of mean 0 and scale 1/255. Level 128 lies
    between 0 and 2 scales from the mean, level 127 as far on its other side, 130 between 4 and 6."""
    import torch

    from mtbench.transformer.plain import plain_attention

    task = opened("mnist", tmp_path)
    model = task.model(ModelConfig(size=SIZE), plain_attention).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([50.0, *[0.0] * 9, *[0.0] * 10, *[-math.log(255)] * 10]))
        pixels = torch.tensor([128, 127, 128, 130], dtype=torch.uint8).repeat(1, 196)
        _, bits = task.loss(model, {"pixels": pixels})
    middle = 1 / (1 + math.exp(-2)) - 1 / 2
    outer = 1 / (1 + math.exp(-6)) - 1 / (1 + math.exp(-4))
    assert bits.item() == pytest.approx(-(3 * math.log2(middle) + math.log2(outer)) / 4, rel=1e-5)


@pytest.mark.torch
def test_no_pixel_sees_itself_or_a_later_one(tmp_path: Path) -> None:
    import torch

    from mtbench.transformer.plain import plain_attention

    torch.manual_seed(0)
    model = MNIST.model(ModelConfig(size=SIZE), plain_attention).eval()
    pixels = torch.randint(0, 256, (1, 784), dtype=torch.uint8)
    changed = pixels.clone()
    changed[0, 400] = 255 - changed[0, 400]
    with torch.no_grad():
        before, after = model(pixels), model(changed)
    assert torch.equal(before[0, :400], after[0, :400])
    assert (before[0, 400:] != after[0, 400:]).any()


def _cut(folder: Path) -> None:
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])


def _labels(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros(9, np.uint8)))


def _other_size(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 32, 32), np.uint8)))


def _no_idx(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"<!DOCTYPE html>")


def _no_images(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))


def _packed_badly(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x" * 99)[:-12])


def _gone(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").unlink()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (_cut, "says that it holds 7 items, 5488 bytes, and has 5487"),
        (_labels, "with 1 axes, and wanted are unsigned bytes"),
        (_other_size, r"holds items of \[32, 32\], and wanted are \[28, 28\]"),
        (_no_idx, "is not an IDX file: it begins with 3c21444f"),
        (_no_images, "says that it holds 0 items"),
        (_packed_badly, "train-images-idx3-ubyte cannot be read"),
        (_gone, r"has no train-images-idx3-ubyte, plain or \.gz: name a folder with MNIST's"),
    ],
)
def test_files_that_are_not_mnists(fault: Any, told: str, tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path / "d")
    fault(folder)
    with pytest.raises(BadInput, match=told) as raised:
        MNIST.open(str(folder))
    assert "\n" not in str(raised.value)


def test_files_that_are_not_cifars(tmp_path: Path) -> None:
    folder = cifar_folder(tmp_path / "d")
    file = folder / "data_batch_3.bin"
    whole = file.read_bytes()
    task = load_task("cifar10")
    for text, told in (
        (whole[:-1], "6145 bytes are no whole number of records of 3073"),
        (b"", "0 bytes are no whole number"),
        (whole[:3073] + b"\x0a" + whole[3074:], "record 1 has the label 10"),
    ):
        file.write_bytes(text)
        with pytest.raises(BadInput, match=told):
            task.open(str(folder))
    file.unlink()
    with pytest.raises(BadInput, match=r"has no data_batch_3\.bin, plain or \.gz: name the folder cifar-10"):
        task.open(str(folder))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_papers_settings_and_claims(name: str) -> None:
    task = load_task(name)
    paper = task.presets["paper"]
    layers, batch, lr, epochs = {"mnist": (8, 10, 1e-4, 250), "cifar10": (16, 4, 2e-4, 100)}[name]
    size = paper.size
    assert (size.layers, size.heads, size.head_dim, size.d_model) == (layers, 8, 32, 256)
    assert (size.feed_forward, size.dropout) == (1024, 0.1)
    assert (paper.schedule.batch, paper.schedule.epochs) == (batch, epochs)
    assert paper.schedule.batch * paper.schedule.iterations == {"mnist": 60_000, "cifar10": 50_000}[name]
    assert (paper.optimization.lr, paper.optimization.drop_epoch) == (lr, None)
    assert task.presets["card"].size == size
    assert task.published is not None
    assert set(task.published.images_per_s) == set(task.published.values["metric"])
    assert len(task.published.claims) == 5 + 6
    bounds = {c.variant: c.bound for c in task.published.claims if c.against is None}
    assert bounds["momentum"] == pytest.approx({"mnist": 0.845, "cifar10": 3.435}[name])


def test_digits_want_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BadInput, match=r"pip install 'mtbench\[digits\]'"):
        DIGITS.open(None)


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    data = mnist_folder(tmp_path / "data")
    job = Job(
        task="mnist",
        variant="linear",
        seed=0,
        model=ModelConfig(size=SIZE, attention="linear"),
        schedule=schedule(2),
        optimization=Optimization(),
        kernels=Kernels(),
        data=str(data),
    )
    with TrainingFolder.create(tmp_path / "r") as folder:
        plan = {"jobs": [job.to_dict()], "rows": [job.id], "parallel": 1}
        header = {"kind": "training", "plan": plan, "environment": {}, "code": {}, "jobs": {}}
        folder.write_header({**header, "data": dict(MNIST.open(str(data)).fingerprints())})
    with pytest.raises(BadInput, match="Changed since"):  # the machine: the data is as it was
        resume_training(tmp_path / "r")
    mnist_folder(data, train=29)
    with pytest.raises(BadInput, match="the data of task mnist has changed since"):
        resume_training(tmp_path / "r")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "mnist"), "the task mnist needs --data DIR, a folder with MNIST's train-images"),
        (("--task", "mnist", "--data", "none"), "--data none is no folder: name a folder with MNIST's"),
        (("--task", "cifar10", "--data", "."), "--data . has no data_batch_1.bin, plain or .gz"),
        (("--task", "digits", "--data", "."), "--data .: the task digits has its data with it"),
        (("--task", "digits", "--seq-len", "32"), "--seq-len 32: an image of the task digits has 64"),
        (("--data", "."), "--data .: the task copy makes its own data"),
    ],
)
def test_bad_words_are_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", "train", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
