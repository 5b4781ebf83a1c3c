"""What a page of generated images says of made-up rows, and of hostile ones."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mtbench.generation.claims import judge_speeds
from mtbench.generation.results import Check, Generated, GenerationFolder, GenerationRun
from mtbench.training.tasks.mnist import TASK
from reports.generation_drawing import planned
from reports.generation_page import write_generation_report

PAPER = ("softmax", "linear", "momentum", "momentum+momentum", "momentum+adaptive")
PLAN = {
    "task": "mnist",
    "drawing": {"device": "cuda"},
    "jobs": [{"model": {"size": asdict(TASK.presets["paper"].size)}}],
}
CHECK = Check(images=64, sampler_bits=0.7, parallel_bits=0.7001, largest=2e-4, tolerance=1e-3)


def row(variant: str, seconds: tuple[float, ...], **changes: Any) -> Generated:
    made: dict[str, Any] = {
        "name": f"{variant}-seed0",
        "variant": variant,
        "shape": (28, 28, 1),
        "trained_size": True,
        "batch": 1000,
        "status": "ok",
        "seconds": seconds,
        "parts_s": tuple(s / 784 for s in seconds[:1]) * 8,
        "held_bytes": 1 << 20,
        "peak_bytes": 3 << 30,
        "moved_bytes": 2.0 * (1 << 20),
        "check": CHECK,
    }
    return Generated(**{**made, **changes})


def folder(path: Path, rows: list[Generated], **header: Any) -> GenerationRun:
    with GenerationFolder.create(path) as made:
        made.write_header(
            {
                "kind": "generation",
                "outcome": "complete",
                "started": "2026-01-02T03:04:05+00:00",
                "plan": PLAN,
                "environment": {},
                "workers": {"torch on cuda": {"copy_bytes_per_s": 3e12}},
                **header,
            }
        )
        for one in rows:
            made.append(one)
    return GenerationRun.load(path)


@pytest.mark.parametrize(
    ("momentum", "verdict"),
    [
        ((1.0, 1.01, 1.0), "held"),
        ((1.0, 1.05, 1.0), "not told apart"),
        ((1.1, 1.2, 1.1), "did not hold"),
    ],
)
def test_speeds_are_held_by_their_rounds(momentum: tuple[float, ...], verdict: str, tmp_path: Path) -> None:
    """139.65 over 142.85 is .9776."""
    run = folder(tmp_path / "r", [row("linear", (1.0, 1.001, 1.0)), row("momentum", momentum)])
    judged = judge_speeds(run, TASK)
    assert len(judged) == 4
    assert [j.verdict for j in judged if j.text.startswith("Momentum generates")] == [verdict]
    assert [j.verdict for j in judged].count("could not be tested") == 3


def test_the_rounds_of_all_seeds_count(tmp_path: Path) -> None:
    """Of three checkpoints of linear attention the last alone would have held."""
    linear = [row("linear", (s, s, s), name=f"linear-seed{n}") for n, s in enumerate((0.9, 1.0, 1.1))]
    run = folder(tmp_path / "r", [*linear, row("momentum", (1.0, 1.0, 1.0))])
    (claim,) = [one for one in judge_speeds(run, TASK) if one.told]
    assert claim.verdict == "not told apart"
    assert claim.told == "0.9 to 1.1 times linear's, over 3 rounds, 1000 images at a time"


def test_softmax_has_to_be_slower(tmp_path: Path) -> None:
    for seconds, verdict in ((2.0, "held"), (0.5, "did not hold")):
        rows = [row("linear", (1.0,) * 3), row("softmax", (seconds,) * 3)]
        assert judge_speeds(folder(tmp_path / verdict, rows), TASK)[0].verdict == verdict


def test_what_cannot_be_tested_says_why(tmp_path: Path) -> None:
    three = [row("linear", (1.0,) * 3), row("momentum", (1.0,) * 3)]
    small = {"model": {"size": asdict(TASK.presets["short"].size)}}
    cases: list[tuple[list[Generated], dict[str, Any], str]] = [
        ([three[0], row("momentum", (1.0, 1.0))], {}, "2 rounds, and at least 3"),
        (three, {"plan": {**PLAN, "drawing": {"device": "cpu"}}}, "not drawn on a GPU"),
        (three, {"plan": {**PLAN, "jobs": [small]}}, "not of the paper's sizes"),
        (three, {"plan": {**PLAN, "jobs": "x"}}, "does not say how large"),
        ([three[0], row("momentum", (1.0,) * 3, batch=8)], {}, "not both drawn from at one batch"),
    ]
    for number, (rows, header, told) in enumerate(cases):
        judged = judge_speeds(folder(tmp_path / str(number), rows, **header), TASK)[1]
        assert judged.verdict == "could not be tested"
        assert told in judged.reason


def test_rows_survive_their_lines(tmp_path: Path) -> None:
    rows = [row("linear", (1.0, 2.0)), row("momentum", (), status="oom", check=None, reason="no room")]
    assert list(folder(tmp_path / "r", rows).rows) == rows


def test_the_share_of_the_roof_is_that_of_the_bytes() -> None:
    """2 MiB an image and pixel of 1,000 images at 3 TB/s is .699 ms, and a step takes 1 ms."""
    assert row("momentum", (0.784,)).share_of_roof(3e12) == pytest.approx(0.699, abs=1e-3)


@pytest.mark.parametrize(("seconds", "told"), [(0.548, "100%"), (0.784, "70%"), (200.0, "0.27%")])
def test_a_share_is_told_in_two_digits(seconds: float, told: str, tmp_path: Path) -> None:
    folder(tmp_path / "r", [row("momentum", (seconds,))])
    assert f'<td class="num">{told}</td>' in write_generation_report(tmp_path / "r").read_text("utf-8")


def test_it_says_what_was_measured_beside_the_paper(tmp_path: Path) -> None:
    rows = [row(name, (1.0 + n / 10, 1.01 + n / 10)) for n, name in enumerate(PAPER)]
    folder(tmp_path / "r", [*rows, row("softmax", (), status="oom", reason="no room", check=None)])
    text = write_generation_report(tmp_path / "r").read_text(encoding="utf-8")
    for part in ("142.8", "of the roof", "table 1", "no room", "0.7000 and 0.7001 bits/dim", "on a V100"):
        assert part in text, part


def test_a_checkpoint_has_one_sheet_however_many_batches_it_drew(tmp_path: Path) -> None:
    run = folder(tmp_path / "r", [row("linear", (1.0,), batch=n) for n in (1, 1000)])
    run.folder.joinpath("samples").mkdir()
    run.folder.joinpath("samples", "linear-seed0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    text = write_generation_report(run.folder).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1


def test_nothing_of_a_run_is_believed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e"
    (tmp_path / "r" / "samples").mkdir(parents=True)
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (tmp_path / "r" / "samples" / "link.png").symlink_to(secret)
    rows = [
        row(evil, (1.0,), name=evil, reason=evil, status=evil),
        row("linear", (1.0,), name="../../secret"),
        row("linear", (1.0,), name="link"),
    ]
    folder(tmp_path / "r", rows, outcome=evil, command=[evil], plan={"task": evil, "drawing": {evil: evil}})
    text = write_generation_report(tmp_path / "r").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\u202e" not in text
    assert "data:image" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "default-src 'none'" in text


def test_a_likelihood_that_is_no_number_is_written_and_disagrees(tmp_path: Path) -> None:
    """It is what the check is there to find."""
    nan, inf = float("nan"), float("inf")
    check = replace(CHECK, sampler_bits=nan, parallel_bits=inf, largest=nan)
    (found,) = folder(tmp_path / "r", [row("linear", (1.0,), check=check, status="disagrees")]).rows
    assert found.check is not None
    assert not found.check.agrees
    assert str(found.check) == str(check)
    assert "DISAGREES<small>nan and inf bits/dim" in write_generation_report(tmp_path / "r").read_text(
        "utf-8"
    )


def test_what_disagrees_is_drawn_in_no_figure(tmp_path: Path) -> None:
    rows = [row("linear", (1.0,)), row("momentum", (0.1,), status="disagrees")]
    (figure,) = planned(folder(tmp_path / "r", rows))
    assert [variant for variant, _, _ in figure.panels[0].lines] == ["linear"]
