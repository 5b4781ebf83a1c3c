"""``mtbench train`` as a user has it: real processes, killed in the middle, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtbench import BadInput
from mtbench.cli import app, main
from mtbench.training import command, runner
from mtbench.training.command import Outcome, resume_training
from mtbench.training.folder import TrainingFolder
from mtbench.training.results import Trained, TrainingRun
from tests.conftest import ROOT, Mtbench, started_with
from tests.training.synthetic import made_run, written

pytestmark = pytest.mark.torch

SMALL = (
    *("train", "--preset", "short", "--variant", "softmax,momentum+adaptive", "--seeds", "1"),
    *("--epochs", "30", "--iterations", "4", "--batch", "4", "--seq-len", "10"),
    *("--threads", "1", "--checkpoint-every", "0"),
)


def learnt(trained: Trained) -> list[tuple[Any, ...]]:
    """What its epochs left, without times."""
    return [(row.loss, row.metric, row.lr, row.held_out_loss, row.held_out_metric) for row in trained.epochs]


def learnt_here(trained: Trained, folder: Path) -> list[tuple[Any, ...]]:
    """The same of a training in this process, which nothing cut off."""
    from mtbench.training.trainer import Trainer

    found = []
    for row in Trainer(trained.job, folder / "here.pt", every_s=1e9).run():
        steps = (tuple(float(f"{x:.9g}") for x in row[name]) for name in ("loss", "metric"))
        held_out = row["evaluation"] or {"loss": None, "metric": None}
        found.append((*steps, row["lr"], held_out["loss"], held_out["metric"]))
    (folder / "here.pt").unlink()
    return found


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command, in a process that a test may do something to. It heeds Ctrl-C, which a shell's jobs in the
    background are started to ignore."""
    heeding = started_with("signal.signal(signal.SIGINT, signal.default_int_handler)")
    return subprocess.Popen(
        [*heeding, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(done: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_whose_worker_is_killed_goes_on_exactly(tmp_path: Path) -> None:
    cut = started(tmp_path, *SMALL, "--out", "cut")
    try:
        lines = tmp_path / "cut" / "epochs.jsonl"
        until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 5)
        (worker,) = [
            child
            for child in psutil.Process(cut.pid).children()
            if "mtbench.training.worker" in child.cmdline()
        ]
        worker.send_signal(signal.SIGKILL)
        out, told = cut.communicate(timeout=120)
    finally:
        cut.kill()
        cut.wait()
    assert cut.returncode == 1, told
    assert f"report: {Path('cut', 'report.html')}" in out
    crashed, other = TrainingRun.load(tmp_path / "cut")
    assert (crashed.status, other.status) == ("crash", "done")
    assert "killed by SIGKILL" in crashed.reason
    assert 5 <= len(crashed.epochs) < 30

    again = resume_training(tmp_path / "cut", time_limit_s=0)
    assert again.cut_off
    assert again.summary == "the time limit is reached: 1 cut off, 1 done"
    done = resume_training(tmp_path / "cut")
    assert (done.summary, done.cut_off, done.failed) == ("2 done", False, False)
    for trained in TrainingRun.load(tmp_path / "cut"):
        assert len(trained.epochs) == 30
        assert learnt(trained) == learnt_here(trained, tmp_path)
    # Nothing is left to do, and nothing is done.
    before = lines.read_bytes()
    assert resume_training(tmp_path / "cut").summary == "2 done"
    assert lines.read_bytes() == before


def test_ctrl_c_saves_and_leaves(tmp_path: Path) -> None:
    run = started(tmp_path, *SMALL, "--variant", "linear", "--epochs", "100000", "--out", "r")
    try:
        lines = tmp_path / "r" / "epochs.jsonl"
        until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 3)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=120)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    assert "interrupted: 1 cut off" in out
    (trained,) = TrainingRun.load(tmp_path / "r")
    assert trained.status == "cut off"
    assert (tmp_path / "r" / "checkpoints" / "linear-seed0.pt").exists()
    assert trained.reason == f"after epoch {len(trained.epochs)}"


def test_one_that_does_not_leave_in_time_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its epochs take longer than it is waited for: no epoch took too long."""
    monkeypatch.setattr(runner, "LEAVE_TIMEOUT_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["mtbench", *SMALL])
    words = [*SMALL, "--variant", "linear", "--time-limit", "0", "--out", str(tmp_path / "r")]
    assert app(words, standalone_mode=False) == 3
    (trained,) = TrainingRun.load(tmp_path / "r")
    assert trained.status == "cut off"
    assert trained.reason == "it had not left after 0 s: its last checkpoint is what is kept"


def test_one_that_is_told_to_leave_at_its_end_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit is over before its one epoch is: nothing of it is left to do."""
    monkeypatch.setattr(sys, "argv", ["mtbench", *SMALL])
    words = [*SMALL, "--variant", "linear", "--epochs", "1", "--out", str(tmp_path / "r")]
    assert app([*words, "--time-limit", "0"], standalone_mode=False) in (None, 0)
    (trained,) = TrainingRun.load(tmp_path / "r")
    assert (trained.status, trained.finished) == ("done", True)
    assert trained.loss is not None


def test_one_that_diverged_is_no_success(tmp_path: Path, mtbench: Mtbench) -> None:
    """At its last step, whose loss was a number."""
    done = mtbench(
        *(
            "train",
            "--preset",
            "short",
            "--variant",
            "linear",
            "--seeds",
            "1",
            "--threads",
            "1",
            "--out",
            "r",
        ),
        *("--epochs", "1", "--iterations", "1", "--batch", "2", "--seq-len", "10", "--lr", "1e30"),
    )
    assert done.returncode == 1, done.stderr
    assert "1 diverged" in done.stdout
    (trained,) = TrainingRun.load(tmp_path / "r")
    assert (trained.status, trained.reason) == ("diverged", "the held-out loss is nan after epoch 1")
    assert not list((tmp_path / "r" / "checkpoints").iterdir())
    assert resume_training(tmp_path / "r").failed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "cop"), "unknown task 'cop': did you mean 'copy'?"),
        (("--preset", "paer"), "did you mean 'paper'?"),
        (("--variant", "momentum+adapt"), "unknown connection 'adapt'"),
        (("--variant", "softmax", "--attention", "linear"), "--variant names both"),
        (("--attention", "softmax", "--connection", "adaptive"), "--variant softmax+adaptive"),
        (("--backend", "jax"), "computes on arrays of jax"),
        (("--backend", "sdpa"), "no form of linear attention"),
        (
            ("--backend", "triton"),
            "'triton' is only interpreted on cpu, too slowly to train with: give --device",
        ),
        (("--backend", "softmax=torch-eager,triton"), "'triton' is only interpreted on cpu"),
        (("--backend", "softmax=sdpa,linear=sdpa"), "backend 'sdpa'"),
        (("--form", "fused"), "has no form 'fused'"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--capture",), "--capture: a CUDA graph"),
        (("--precision", "half"), "unknown precision 'half'"),
        (("--epochs", "0"), "epochs = 0 must be at least 1"),
        (("--seq-len", "4"), "--seq-len 4"),
        (("--lr", "-1"), "lr = -1.0 must be a positive"),
        (("--beta", "1"), "beta = 1.0 is outside [0, 1)"),
        (("--connection-momentum", "7"), "connection-momentum = 7.0 is outside [0, 1)"),
        (("--connection-step", "-1"), "connection-step = -1.0 must be a positive"),
        (("--variant", ","), "--variant ',': no name is there"),
        (("--backend", ","), "--backend ',': no name is there"),
        (("--task", "mnist", "--data", "/nonexistent"), "--data /nonexistent is no folder"),
        (("--task", "text", "--data", "/nonexistent"), "--data /nonexistent has no train/"),
        (("--parallel", "0"), "--parallel 0: "),
        (("--parallel", "2", "--seed=-1"), "--seed -1: "),
        (("--time-limit", "-1"), "--time-limit -1.0: must be a finite number"),
        (("--timeout", "0"), "--timeout 0.0: must be a finite number above 0"),
        (("--timeout", "inf"), "--timeout inf: must be a finite number above 0"),
        (("--checkpoint-every", "nan"), "--checkpoint-every nan: must be a finite number"),
        (("--resume", "nowhere"), "nowhere holds no run"),
        (("--resume", "nowhere", "--seeds", "2"), "leave out --seeds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
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


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(interrupted=False, cut_off=False, counts={"done": 2}), 0),
        (Outcome(interrupted=False, cut_off=False, counts={"done": 1, "diverged": 1}), 1),
        (Outcome(interrupted=False, cut_off=True, counts={"done": 1, "cut off": 1}), 3),
        (Outcome(interrupted=True, cut_off=False, counts={"cut off": 2}), 130),
    ],
)
def test_exit_codes(
    outcome: Outcome, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    written(made_run({"linear": [(0.1, 0.9, 1.0)]}), tmp_path / "r")
    monkeypatch.setattr(command, "resume_training", lambda *a, **k: outcome)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", "train", "--resume", "r"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code
    out = capsys.readouterr().out
    assert f"report: {Path('r', 'report.html')}" in out
    assert ("go on with: mtbench train --resume r" in out) == (code == 3)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "device_problem", lambda device: "no driver" if device == "cuda" else None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", "train", "--device", "cuda"])
    with pytest.raises(BadInput, match="device 'cuda' is not there: no driver; there is: cpu"):
        app(standalone_mode=False)


def test_a_folder_is_of_one_kind(tmp_path: Path, mtbench: Mtbench) -> None:
    with TrainingFolder.create(tmp_path / "t") as folder:
        plan: dict[str, list[str]] = {"jobs": [], "rows": []}
        folder.write_header({"kind": "training", "plan": plan, "environment": {}, "jobs": {}})
    done = mtbench("run", "--resume", "t")
    assert done.returncode == 2
    assert done.stderr == ("mtbench: t holds a training run, and what is wanted here is a sweep\n")
    assert mtbench("report", "t").returncode == 0
