"""A step as a CUDA graph: what it leaves is what a plain step leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mtbench.training.settings import Kernels  # noqa: E402
from mtbench.training.tasks.image_settings import sized  # noqa: E402
from mtbench.training.trainer import Trainer  # noqa: E402
from mtbench.transformer import linear  # noqa: E402
from tests.training.images import mnist_folder  # noqa: E402
from tests.training.sequences import opened, planned  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.gpu]


def losses(job: Any, folder: Path, name: str) -> list[float]:
    return [x for row in Trainer(job, folder / f"{name}.pt", every_s=1e9).run() for x in row["loss"]]


@pytest.mark.parametrize("backend", ["torch-eager", "triton"])
@pytest.mark.parametrize("variant", ["softmax", "momentum+adaptive", "momentum-released"])
def test_a_captured_step_learns_what_a_plain_one_does(
    job: Any, backend: str, variant: str, tmp_path: Path
) -> None:
    """Without dropout, whose random numbers a graph may draw from other places; over a change of lr."""
    made = job(variant)
    size = replace(made.model.size, dropout=0.0)
    made = replace(made, model=replace(made.model, size=size))
    runs = []
    for capture in (False, True):
        kernels = Kernels(backends={"": backend}, device="cuda", capture=capture)
        runs.append(losses(replace(made, kernels=kernels), tmp_path, f"{capture}"))
    assert runs[1] == pytest.approx(runs[0], rel=1e-3)
    assert len(set(runs[1])) == len(runs[1])  # every step saw its own data


@pytest.mark.parametrize(("capture", "compiled"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("variant", ["softmax", "momentum", "momentum+adaptive"])
def test_images_are_learnt_alike_however_a_step_is_run(
    job: Any, variant: str, capture: bool, compiled: bool, tmp_path: Path
) -> None:
    """In bfloat16, as on a card: captured, with its elementwise parts fused, and both."""
    torch.compiler.reset()
    made = job(variant)
    size = sized(784, d_model=64, layers=3, heads=2, head_dim=32, feed_forward=64, dropout=0.0)
    schedule = replace(made.schedule, batch=3, seq_len=784, iterations=8)
    data = str(mnist_folder(tmp_path / "data"))
    made = replace(made, task="mnist", data=data, schedule=schedule, model=replace(made.model, size=size))
    runs = []
    for how in ({}, {"capture": capture, "compiled": compiled}):
        kernels = Kernels(backends={"": "triton"}, device="cuda", precision="bfloat16", **how)
        runs.append(losses(replace(made, kernels=kernels), tmp_path, str(len(how))))
    assert runs[1] == pytest.approx(runs[0], rel=2e-2)
    assert len(set(runs[1])) == len(runs[1])


@pytest.mark.parametrize("variant", ["softmax", "momentum+adaptive"])
@pytest.mark.parametrize("name", ["translation", "translation-refined"])
def test_odd_sizes_are_learnt_alike_however_a_step_is_run(
    name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16: products as they are, padded, padded and captured, and all that compiled."""
    torch.compiler.reset()
    opened(name, tmp_path, monkeypatch)
    made = planned(name, str(tmp_path / "text"), variant, epochs=1, iterations=16, batch=8)
    size = replace(made.model.size, d_model=30, head_dim=15, feed_forward=27, dropout=0.0)
    made = replace(made, model=replace(made.model, size=size))
    runs = []
    for padded, capture, compiled in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)):
        with monkeypatch.context() as patch:
            if not padded:
                patch.delitem(linear.ALIGNED, ("cuda", torch.bfloat16))
            kernels = Kernels(
                backends={"": "triton"},
                device="cuda",
                precision="bfloat16",
                capture=bool(capture),
                compiled=bool(compiled),
            )
            job = replace(made, kernels=kernels)
            file = tmp_path / f"{padded}{capture}{compiled}.pt"
            trainer = Trainer(job, file, every_s=1e9, shared=tmp_path / "shared")
            runs.append([x for row in trainer.run() for x in row["loss"]])
    # Two roundings may choose another likeliest subword, which the refiner is then given.
    near = 0.2 if name == "translation-refined" else 3e-2
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], rel=near)
        assert len(set(run)) == len(run)


@pytest.mark.parametrize("capture", [False, True])
def test_one_that_was_cut_off_goes_on_on_a_gpu(job: Any, capture: bool, tmp_path: Path) -> None:
    """With dropout. Its sums over the batch are in no fixed order on a GPU, so equal to rounding."""
    made = job("momentum+adaptive", kernels=Kernels(device="cuda", capture=capture))
    made = replace(made, schedule=replace(made.schedule, iterations=8))
    whole = losses(made, tmp_path, "whole")
    first = Trainer(made, tmp_path / "parts.pt", every_s=1e9)
    rows = first.run()
    found = [*next(rows)["loss"], *next(rows)["loss"]]
    first.save()
    torch.cuda.manual_seed(77)
    found += losses(made, tmp_path, "parts")
    assert found == pytest.approx(whole, rel=1e-3)


def test_steps_have_seconds_by_the_devices_clock(job: Any, tmp_path: Path) -> None:
    made = job("linear", kernels=Kernels(device="cuda", capture=True))
    rows = list(Trainer(made, tmp_path / "x.pt", every_s=1e9).run())
    assert all(0 < s < 1 for s in rows[-1]["seconds"])
    assert [row["captured"] for row in rows] == [2, 5, 5, 2]  # of 5; lr changes before the last epoch
    assert rows[-1]["peak_memory_bytes"] > 0
    assert rows[-1]["memory_method"].startswith("torch.cuda")


@pytest.mark.parametrize("backend", ["torch-eager", "triton"])
@pytest.mark.parametrize("variant", ["softmax", "linear", "momentum+adaptive"])
@pytest.mark.parametrize("name", ["listops", "translation", "translation-refined"])
def test_captured_steps_follow_lengths_and_shapes(
    name: str, variant: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph for each shape of batch, whose lengths are other ones at every replay."""
    opened(name, tmp_path, monkeypatch)
    data = str(tmp_path / "text") if name.startswith("translation") else None
    made = planned(name, data, variant, epochs=2, iterations=24, batch=8)
    made = replace(made, model=replace(made.model, size=replace(made.model.size, dropout=0.0)))
    runs = []
    for capture in (False, True):
        kernels = Kernels(backends={"": backend}, device="cuda", capture=capture)
        trainer = Trainer(
            replace(made, kernels=kernels),
            tmp_path / f"{capture}.pt",
            every_s=1e9,
            shared=tmp_path / "shared",
        )
        rows = list(trainer.run())
        runs.append([x for row in rows for x in row["loss"]])
        assert (rows[-1]["captured"] == 24) == capture
        assert rows[-1]["evaluation"]["loss"] > 0
        assert (rows[-1]["examined"] is None) == (name == "listops")
    # Two roundings may choose another likeliest subword, which the refiner is then given.
    near = 0.2 if name == "translation-refined" else 5e-3
    assert runs[1] == pytest.approx(runs[0], rel=near)
