"""What the terminal shows of a training run."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from mtbench.training import display
from tests.training.synthetic import made_run


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    run = made_run({"linear": [(0.1, 0.9, 1.5)], "momentum": [(0.05, 0.9, 1.5)]})
    out = io.StringIO()

    def console(**_: Any) -> Console:
        return Console(file=out, force_terminal=terminal, width=120, highlight=False)

    monkeypatch.setattr(display, "Console", console)
    with display.show_training() as progress:
        progress.begin([trained.job for trained in run], 200, 0)
        for trained in run:
            for row in trained.epochs:
                progress.epoch(trained.job, row)
            progress.ended(trained.job, "crash" if trained.job.variant == "momentum" else "done", "[why]")
    return out.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False).splitlines()
    assert len(lines) == 2 * (display.LINES_A_JOB + 1)
    told = "linear, seed 0: epoch 20 of 100, loss 2.699, held out 2.453, 1.5 s an epoch (about 0 s left)"
    assert lines[0] == told
    assert lines[5] == "[1/2] linear, seed 0: done: [why]"
    assert lines[-1] == "[2/2] momentum, seed 0: crash: [why]"
    assert "about 0 s left" in lines[-2]


def test_a_bar_for_each_job_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True)
    assert "momentum, seed 0: crash: [why]" in text
    assert "200/200" in text
