"""Trainings spread over several GPUs: which process sees which."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtbench import BackendFailure, BadInput
from mtbench.cli import app
from mtbench.measure import environment
from mtbench.sweep.child import ChildProcess
from mtbench.training import command, runner
from mtbench.training.folder import TrainingFolder
from mtbench.training.results import TrainingRun
from mtbench.training.runner import Settings
from tests.training.synthetic import made_run, written

SMALL = (
    *("train", "--preset", "short", "--variant", "linear,momentum", "--seeds", "2", "--out", "r"),
    *("--epochs", "1", "--iterations", "1", "--batch", "2", "--seq-len", "10", "--threads", "1"),
)


@pytest.mark.parametrize(
    ("said", "there", "wanted"),
    [
        (None, 2, ("0", "1")),
        ("3, 1", 2, ("3", "1")),
        ("GPU-a,GPU-b", 2, ("GPU-a", "GPU-b")),
        ("0,9,1", 1, ("0",)),  # CUDA sees none from the first that is not there on
        ("", 0, ()),
    ],
)
def test_the_gpus_of_this_process(
    said: str | None, there: int, wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_cuda_devices", lambda: (there, ""))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert environment.visible_gpus() == wanted


def test_one_on_every_gpu_before_a_second_on_any() -> None:
    places = Settings(parallel=2, gpus=("4", "5"), memory_limit_bytes=1).environments()
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["4", "5", "4", "5"]
    assert Settings(parallel=2, memory_limit_bytes=1).environments() == [{}, {}]


@pytest.mark.torch
def test_each_process_sees_one_gpu_and_no_two_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, with names that no GPU has: real processes, whose own environment is read."""
    lock = threading.Lock()
    alive: list[str] = []
    begun: list[str] = []
    seen: list[str] = []
    rating: list[bool] = []

    class Watched(ChildProcess):
        def __init__(self, *words: Any, **settings: Any) -> None:
            super().__init__(*words, **settings)
            self.gpu = settings["environment"]["CUDA_VISIBLE_DEVICES"]
            with lock:
                assert self.gpu not in alive
                alive.append(self.gpu)
                begun.append(self.gpu)

        def send(self, message: dict[str, Any]) -> None:
            if "job" in message:
                rating.append(message["rated"])
            super().send(message)

        def poll(self, *words: Any) -> dict[str, Any] | None:
            message = super().poll(*words)
            if message is not None and "hello" in message:
                seen.append(psutil.Process(self._process.pid).environ()["CUDA_VISIBLE_DEVICES"])
                assert seen[-1] == self.gpu
            return message

        def stop(self, *, kill: bool) -> None:
            super().stop(kill=kill)
            with lock:
                alive.remove(self.gpu)

    def settings(**given: Any) -> Settings:
        return Settings(**{**given, "gpus": ("first", "second")})

    monkeypatch.setattr(runner, "ChildProcess", Watched)
    monkeypatch.setattr(command, "Settings", settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", *SMALL])
    app(SMALL, standalone_mode=False)
    assert {trained.status for trained in TrainingRun.load(tmp_path / "r")} == {"done"}
    assert set(begun[:2]) == {"first", "second"}
    assert sorted(seen) == sorted(begun)
    assert len(seen) == 4
    assert sorted(rating[:2]) == [False, True]  # two at once would measure each other


@pytest.mark.parametrize(
    ("words", "there", "told"),
    [
        (("--gpus", "2"), 4, "--gpus 2: trainings on device cpu have no GPU; leave it out"),
        (
            ("--gpus", "3", "--device", "cuda"),
            2,
            "--gpus 3: this process sees 2; ask for no more",
        ),
    ],
)
def test_gpus_that_are_not_there(
    words: Sequence[str], there: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "device_problem", lambda device: None)
    monkeypatch.setattr(command, "visible_gpus", lambda: tuple(map(str, range(there))))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as error:
        app([*SMALL, *words], standalone_mode=False)
    assert str(error.value).startswith(told)
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_a_process_that_cannot_be_started_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "ChildProcess", full)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", *SMALL])
    with pytest.raises(BackendFailure, match="linear-seed0 could be started: No space left on device"):
        app(SMALL, standalone_mode=False)
    assert TrainingRun.load(tmp_path / "r").header["outcome"] == "running"


@pytest.mark.parametrize(("plan", "wanted"), [({"gpus": 2}, ("a", "b")), ({"gpus": 1}, ()), ({}, ())])
def test_a_run_goes_on_with_as_many_gpus_as_it_has_begun_with(
    plan: dict[str, int], wanted: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Settings] = []

    class Recorded:
        def __init__(self, folder: Any, header: Any, run: Any, settings: Settings, progress: Any) -> None:
            found.append(settings)

        def run(self) -> bool:
            return False

    monkeypatch.setattr(command, "TrainingRunner", Recorded)
    monkeypatch.setattr(command, "visible_gpus", lambda: ("a", "b", "c"))
    folder = written(made_run({"linear": [(0.1, 0.9, 1.0)]}), tmp_path / "r").folder
    with TrainingFolder.resume(folder)[0] as opened:
        header = {"plan": {"parallel": 1, "every_s": 1.0, "timeout_s": 1.0} | plan}
        command._trained(opened, header, None)
    assert [settings.gpus for settings in found] == [wanted]


@pytest.mark.parametrize(("asked", "wanted"), [(None, 2), (3, 3)])
def test_a_run_goes_on_with_the_gpus_that_are_asked_for(
    asked: int | None, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(made_run({"linear": [(0.1, 0.9, 1.0)]}), tmp_path / "r").folder
    header = json.loads((folder / "run.json").read_text())
    header["plan"] |= {"gpus": 2, "parallel": 1, "every_s": 1.0, "timeout_s": 1.0}
    (folder / "run.json").write_text(json.dumps(header))
    checked, begun = [], []
    monkeypatch.setattr(command, "_check_device", lambda kernels, gpus: checked.append(gpus))
    monkeypatch.setattr(command, "check_same", lambda old, new: None)
    monkeypatch.setattr(
        command, "_trained", lambda folder, header, limit: begun.append(header["plan"]["gpus"])
    )
    command.resume_training(folder, gpus=asked)
    assert checked == begun == [wanted]
