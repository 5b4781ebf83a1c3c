"""``mtbench generate`` as a user has it, on models that were trained for a moment."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mtbench.cli import main  # noqa: E402
from mtbench.generation import measure  # noqa: E402
from mtbench.generation.results import GenerationRun  # noqa: E402
from mtbench.training.tasks.digits import TASK as DIGITS  # noqa: E402
from mtbench.transformer.sampling import Sampler  # noqa: E402

pytestmark = pytest.mark.torch

Trained = Callable[..., list[Path]]


def generated(words: list[Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["mtbench", "generate", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_images_their_times_their_likelihood_and_the_page(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    out = tmp_path / "g"
    files = trained("softmax", "linear", "momentum+adaptive")
    words = [*files, "--batch", "5", "--sizes", "8,4", "--threads", "1", "--rounds", "2", "--out", out]
    assert generated(words, monkeypatch) == 0
    told = capsys.readouterr().out
    assert "momentum+adaptive-seed0, 8 x 8, batch 5: " in told
    assert "6 ok" in told
    run = GenerationRun.load(out)
    assert len(run.rows) == 6
    for row in run.rows:
        assert (row.status, len(row.seconds)) == ("ok", 2)
        assert all(s > 0 for s in (*row.seconds, *row.parts_s))
        assert sum(row.parts_s) / 8 == pytest.approx(row.latency_s, rel=1)
        assert (row.check is not None) == (row.shape == (8, 8, 1)) == row.trained_size
        if row.check is not None:
            assert row.check.images == row.batch
            assert row.check.largest < 1e-5
            assert 0 < row.check.sampler_bits < 20
    held = {(row.variant, row.positions): row.held_bytes for row in run.rows}
    state = 2 * 2 * 8 * 8 * 4
    assert held["linear", 16] == held["linear", 64] == state + 2 * 2 * 8 * 4
    assert held["momentum+adaptive", 16] == held["momentum+adaptive", 64] == 2 * state + 2 * 2 * 8 * 4
    assert held["softmax", 64] == 4 * held["softmax", 16] == 2 * 2 * 64 * 2 * 8 * 4
    sheet = imread(out / "samples" / "linear-seed0.png")
    assert sheet.shape[1] > 5 * 8
    page = (out / "report.html").read_bytes()
    for part in ("6 ok", "momentum + adaptive connection", "agrees", "data:image/png;base64,", "by-size.svg"):
        assert part in page.decode()
    from mtbench.report import write_report

    assert write_report(out).read_bytes() == page
    again = [*files, "--out", out]
    assert generated(again, monkeypatch) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_sampler_that_is_wrong_about_what_it_draws_is_found_out(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose keys are those of the token before."""
    real = Sampler._step

    def forgetful(self: Sampler) -> None:
        real(self)
        if int(self._at) == 20:
            for kept in self.pasts:
                kept.clear()

    monkeypatch.setattr(Sampler, "_step", forgetful)
    out = tmp_path / "g"
    words = [*trained("linear"), "--batch", "2", "--threads", "1", "--rounds", "1", "--out", out]
    assert generated(words, monkeypatch) == 1
    (row,) = GenerationRun.load(out).rows
    assert row.status == "disagrees"
    assert "another likelihood than the sampler" in row.reason
    assert "DISAGREES" in (out / "report.html").read_text()


def test_memory_that_is_short_is_a_row(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure.load_model

    def short(source: Any, positions: int, device: str) -> Any:
        if positions > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")
        return real(source, positions, device)

    monkeypatch.setattr(measure, "load_model", short)
    out = tmp_path / "g"
    words = [*trained("linear"), "--sizes", "16,8", "--threads", "1", "--rounds", "1", "--out", out]
    assert generated(words, monkeypatch) == 0
    rows = GenerationRun.load(out).rows
    assert [row.status for row in rows] == ["oom", "ok"]
    assert rows[0].reason == "CUDA out of memory. Tried to allocate"
    assert "oom</span>" in (out / "report.html").read_text()


def test_memory_that_is_short_for_all_is_a_failure(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more images at a time than an address space holds."""
    out = tmp_path / "g"
    assert (
        generated([*trained("linear"), "--batch", 10**15, "--threads", "1", "--out", out], monkeypatch) == 1
    )
    assert [row.status for row in GenerationRun.load(out).rows] == ["oom"]


def test_samples_look_like_what_was_learnt_more_than_noise_does(trained: Trained, tmp_path: Path) -> None:
    """Even a moment's training makes the model prefer data to noise of the same levels."""
    from mtbench.generation.source import find_sources

    (source,) = find_sources(trained("momentum+adaptive"))
    model = measure.load_model(source, 64, "cpu")
    data = DIGITS.open(None).batches(
        source.trained.job.schedule, source.trained.job.model.size, seed=0, epoch=0, held_out=True
    )["pixels"][0]
    noise = np.random.default_rng(0).integers(0, 256, data.shape).astype(np.uint8)
    with torch.no_grad():
        ours, theirs = (model(torch.from_numpy(x)).mean().item() for x in (data, noise))
    assert ours > theirs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.pt"], "nowhere.pt is no file"),
        (["alone.pt"], "does not lie in checkpoints/ of a run of mtbench train"),
        (["{run}/checkpoints/other.pt"], "is of no training of its run: softmax-seed0"),
        (["{linear}", "--batch", "0"], "--batch 0: must be at least 1"),
        (["{linear}", "--batch", ","], "--batch ',': no number is there"),
        (["{linear}", "--rounds", "0"], "--rounds 0: "),
        (["{linear}", "--sizes", "x"], "--sizes x: neither a whole number"),
        (["{linear}", "--device", "tpu"], "unknown device 'tpu'"),
        (["{linear}", "--precision", "half"], "unknown precision 'half'"),
        (["{linear}", "--capture"], "--capture: a CUDA graph"),
        (["{linear}", "--backend", "torch-eager"], "--backend torch-eager: it decodes nothing"),
        (["{linear}", "--backend", "jax"], "--backend jax: it decodes nothing"),
        (["{linear}", "--backend", "tritn"], "unknown backend 'tritn': did you mean 'triton'? known: own, "),
        (["{linear}", "--backend", "onw"], "unknown backend 'onw': did you mean 'own'?"),
        (["{linear}", "--backend", "triton"], "'triton' is only interpreted on cpu, too slowly to draw with"),
        (["{linear}", "--threads", "9999"], "--threads 9999: this process may use"),
        (["{linear}", "{linear}"], "two checkpoints are called linear-seed0"),
        (["{momentum-released}"], "which is another function: leave it out"),
        (["{run}/checkpoints/momentum+adaptive-seed0.pt"], "is a checkpoint of linear-seed0, and not of"),
        (["{run}/checkpoints/softmax-seed0.pt"], "is no checkpoint of softmax-seed0 that can be read"),
        (["{linear}", "{run}/checkpoints/softmax-seed0.pt"], "is no checkpoint of softmax-seed0"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    told: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "alone.pt").write_bytes(b"x")
    run = tmp_path / "run"
    shutil.copytree(trained("linear")[0].parent.parent, run)
    checkpoints = run / "checkpoints"
    (checkpoints / "other.pt").write_bytes(b"x")
    (checkpoints / "softmax-seed0.pt").write_bytes(b"x")
    shutil.copy(checkpoints / "linear-seed0.pt", checkpoints / "momentum+adaptive-seed0.pt")
    monkeypatch.chdir(tmp_path)
    named = {name: trained(name)[0] for name in ("linear", "momentum-released")}
    filled = [word.format(run=run, **named) for word in words]
    assert generated([*filled, "--out", "g"], monkeypatch) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert not (tmp_path / "g").exists()
