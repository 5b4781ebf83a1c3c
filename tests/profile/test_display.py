"""The screen of a profile and of two, where there are 80 columns: names break, figures never do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mtbench.cli import main
from mtbench.profile.display import MOST_LINES, print_profile
from mtbench.profile.record import Operator, Profile, read_profile
from tests.profile.conftest import ROOT
from tests.profile.synthetic import gpu_profile

RECORDED = ROOT / "docs" / "results" / "h100-profiles"
FAST, SLOW = (RECORDED / f"momentum-{name}.json" for name in ("triton-fused", "torch-eager-chunked"))


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def lines_of(text: str, heading: str) -> list[str]:
    """Those of the table whose first heading that is, and no more than 80 columns wide."""
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.split()[:1] == [heading])
    table = lines[first:]
    assert max(map(len, table[: 2 * MOST_LINES])) <= 80
    return table


def test_two_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of kernels whose names are over a hundred letters long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mtbench", "profile", str(FAST), "--against", str(SLOW)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    head, *lines = lines_of(capsys.readouterr().out, "kernels")
    assert head.split() == ["kernels", "A", "ms", "B", "ms", "B", "-", "A", "ms", "calls"]
    told = [line.split()[-6:] for line in lines]
    assert ["-", "0.866", "+0.866", "0", "|", "12"] in told
    assert ["0.2374", "0.1067", "-0.1306", "1", "|", "1"] in told
    assert sum("|" in line for line in lines) == MOST_LINES + 3
    assert (tmp_path / "against.html").is_file()


def test_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    print_profile(read_profile(SLOW))
    head, *lines = lines_of(capsys.readouterr().out, "kernel")
    assert head.split() == ["kernel", "calls", "ms", "share", "grid", "block", "regs", "shared", "spills"]
    told = [line.split()[-7:] for line in lines]
    assert ["12", "0.866", "10%", "65536x1x1", "128x1x1", "34", "0"] in told
    assert ["3", "0.2767", "3%", "1x16x128", "128x1x1", "255", "33280"] in told
    assert "CUDAFunctor_add" in "".join(lines)  # what tells them apart, and not what they all begin with


def operators(profile: Profile, *found: Operator) -> Profile:
    assert profile.traced is not None
    return replace(profile, traced=replace(profile.traced, kernels=(), operators=found))


def test_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of which both a name and its shapes may be long."""
    one = Operator(
        name="autograd::engine::evaluate_function: ScaledDotProductFlashAttentionForCpuBackward0",
        calls=128,
        self_ms=0.00012345,
        total_ms=12345.6,
        shapes=", ".join(["8x16x4096x64"] * 9),
    )
    print_profile(operators(gpu_profile(tmp_path), one))
    head, line, *_ = lines_of(capsys.readouterr().out, "operator")
    assert head.split() == ["operator", "calls", "self", "ms", "total", "ms", "inputs"]
    assert "128 0.0001234 1.235e+04 8x16x4096x64" in " ".join(line.split())


def test_a_block_that_has_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    print_profile(read_profile(SLOW))
    told = " ".join(capsys.readouterr().out.split())
    assert "set by something that nobody names (torch's caching allocator" in told
