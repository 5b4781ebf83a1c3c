"""Small data for the tasks on sequences."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from mtbench.training.command import Asked, plan_jobs, preset_of
from mtbench.training.settings import Job, Kernels
from mtbench.training.tasks import Task, listops, load_task
from mtbench.training.variants import parse_variants
from tests.training.images import image_folder

__all__ = ["corpus", "dashes", "few_expressions", "opened", "planned", "reviews"]

NUMBERS = ("one eins", "two zwei", "three drei", "four vier", "five fünf", "six sechs", "seven sieben")


def corpus(folder: Path, *, train: int = 400, packed: bool = False) -> Path:
    """Numbers and their translation, word by word in reversed order: ``train.en`` and so on."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(0)
    for split, count in (("train", train), ("valid", 20), ("test", 30)):
        sides: tuple[list[str], list[str]] = ([], [])
        for _ in range(count):
            words = [rng.choice(NUMBERS).split() for _ in range(rng.randint(1, 9))]
            sides[0].append(" ".join(english for english, _ in words) + ".")
            sides[1].append(" ".join(german for _, german in reversed(words)) + ".")
        for language, lines in zip(("en", "de"), sides, strict=True):
            data = ("\n".join(lines) + "\n").encode()
            file = folder / f"{split}.{language}"
            if packed:
                Path(f"{file}.gz").write_bytes(gzip.compress(data))
            else:
                file.write_bytes(data)
    return folder


def reviews(folder: Path) -> Path:
    """Films that are good or bad, as the Large Movie Review Dataset lies."""
    for part in ("train", "test"):
        for side, word in (("pos", "good"), ("neg", "bad")):
            (folder / part / side).mkdir(parents=True)
            for at in range(12):
                (folder / part / side / f"{at}_7.txt").write_text(f"A {word} film, number {at}. " * (at + 1))
    return folder


def dashes(folder: Path) -> Path:
    """Images, half of them bright, as Pathfinder's lie."""
    from PIL import Image

    (folder / "metadata").mkdir(parents=True)
    (folder / "imgs" / "0").mkdir(parents=True)
    lines = []
    for at in range(20):
        Image.new("L", (32, 32), 200 * (at % 2) + at).save(folder / "imgs" / "0" / f"sample_{at}.png")
        lines.append(f"imgs/0 sample_{at}.png {at} {at % 2} 1.8 6 2")
    (folder / "metadata" / "0.npy").write_text("\n".join(lines) + "\n")
    return folder


def few_expressions(folder: Path, monkeypatch: pytest.MonkeyPatch, **splits: int) -> None:
    """Has ListOps make few, and keep them there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(listops, "SPLITS", {"train": 300, "valid": 20, "test": 50, **splits})
    listops._all.cache_clear()


def opened(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The task with small data, and what its trainings share."""
    data = image_folder(name, folder)
    if name.startswith("translation"):
        data = str(corpus(folder / "text"))
    if name in ("text", "pathfinder"):
        data = str({"text": reviews, "pathfinder": dashes}[name](folder / "data"))
    if name == "listops":
        few_expressions(folder, monkeypatch)
    task = load_task(name).open(data)
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    for file, content in task.shared(planned(name, data)).items():
        (shared / file).write_bytes(content)
    return task.given(shared)


def planned(name: str, data: str | None, variant: str = "linear", **changes: Any) -> Job:
    """A short job of a task; of a translation with few subwords and short sentences."""
    task = load_task(name)
    if name.startswith("translation"):
        changes = {"seq_len": 24, **changes}
    preset = preset_of(task, "short", **changes)
    if name.startswith("translation"):
        from dataclasses import replace

        preset = replace(preset, size=replace(preset.size, vocabulary=60, d_model=32, head_dim=16))
    (job,) = plan_jobs(
        Asked(
            task=task,
            data=data,
            preset_name="short",
            preset=preset,
            momenta=task.momenta,
            variants=parse_variants([variant]),
            seeds=(0,),
            kernels=Kernels(),
        )
    )
    return job
