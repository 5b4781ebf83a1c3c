"""What the terminal shows while a run goes on."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from mtbench import Case, display
from mtbench.sweep.plan import PlannedRow

ROWS = [
    PlannedRow(
        case=Case(seq_len=16384 * (n + 1), mode="forward_backward"),
        asked="torch-compile",
        backend="torch-compile",
        form="recurrent",
    )
    for n in range(5)
]


def shown(monkeypatch: pytest.MonkeyPatch, width: int | None) -> list[str]:
    """The lines of a run on a terminal so wide, or on none."""
    written = io.StringIO()

    def console(*, stderr: bool, **more: Any) -> Console:
        return Console(file=written, force_terminal=width is not None, width=width, color_system=None, **more)

    monkeypatch.setattr(display, "Console", console)
    with display.show_progress() as progress:
        progress.begin(ROWS)
        for index, row in enumerate(ROWS):
            progress.row(index, row, "wall clock")
            progress.done(index, row, row.outcome("error" if index == 2 else "ok", ""))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]", text) if line.strip()]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_what_is_at_work_and_what_is_left(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(monkeypatch, width)
    assert max(map(len, lines)) <= width
    last = lines[-1]
    assert "5/5" in last
    assert "about 0 s left" in last
    assert "torch-compile recurrent" in last
    assert ("wall clock" in last) == (width >= 160)
    assert any("error" in line for line in lines)  # what failed stays on the screen


def test_without_a_terminal_there_is_a_plain_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, None)
    assert len(lines) == len(ROWS)
    assert lines[-1].startswith("[5/5] torch-compile recurrent momentum b1 h8 n81920 d64 float32 cpu")
    assert "(about 0 s left)" in lines[-1]
