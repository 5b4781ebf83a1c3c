"""``mtbench profile`` and ``mtbench run --profile``, whole: real processes, real profilers, real files."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mtbench.cli import main
from mtbench.profile.bounds import VERDICTS
from mtbench.profile.names import profile_folder
from mtbench.profile.record import read_profile
from mtbench.results import Run
from tests.profile.conftest import command, needs_py_spy

Made = tuple[Path, CompletedProcess[str]]

pytestmark = [pytest.mark.torch, pytest.mark.jax]


def test_a_profile_of_eager_torch(eager: Made) -> None:
    folder, done = eager
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "profile: made/profile.html"
    profile = read_profile(folder)
    assert profile.bound.verdict in VERDICTS
    assert profile.bound.verdict in done.stdout
    seen = profile.traced
    assert seen is not None
    assert seen.calls == 5
    names = {operator.name for operator in seen.operators}
    assert {"aten::bmm", "aten::exp"} & names
    assert sum(operator.self_ms for operator in seen.operators) <= 1.05 * seen.wall_ms
    assert profile.work.bytes_from == "its operators"  # chunks in memory are more than q, k, v and o once
    allocator, resident = profile.memory
    assert allocator.peak_bytes > 0
    assert allocator.at_peak[0].what.startswith("aten::")
    assert any("torch_forms" in frame for block in allocator.at_peak for frame in block.stack)
    assert resident.points
    assert json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    assert b"host_name" not in gzip.decompress((folder / "trace.json.gz").read_bytes()).replace(
        b'"host_name": ""', b""
    )


def test_its_flame_graph(eager: Made) -> None:
    needs_py_spy()
    folder, _ = eager
    profile = read_profile(folder)
    if profile.flame is None:
        assert "ptrace" in profile.missing["flame"]  # the one machine that may have none
        return
    (call,) = [one for one in profile.flame.children if one.name.startswith("Profiled._call")]
    assert call.seconds > 0.5 * profile.flame.seconds
    told = json.loads((folder / "flame.speedscope.json").read_text())
    assert "speedscope" in told["$schema"]


def test_a_profile_is_read_as_it_was_written(eager: Made) -> None:
    folder, _ = eager
    assert read_profile(folder).to_json() == (folder / "profile.json").read_text()


def test_rows_of_a_sweep(swept: Made) -> None:
    folder, done = swept
    assert done.returncode == 0, done.stderr
    (row,) = Run.load(folder)
    profile = read_profile(profile_folder(folder, row.id))
    assert profile.row == row  # the sweep's own clocks, and none that ran beside a profiler
    assert profile.traced is not None
    assert profile.traced.operators
    assert profile.made.digest["optimised.hlo.txt"]["products"] > 0
    assert "XLA" in profile.work.bytes_from
    living, resident, plan = profile.memory
    assert living.at_peak[0].what.startswith("float32[1,2,64,64]")
    assert resident.points
    assert plan.at_peak[0].what.count("f32[") >= 1
    assert plan.peak_bytes >= 4 * 2 * 64 * 64 * 4  # q, k, v and o at the least
    assert (profile_folder(folder, row.id) / "device-memory.prof.gz").stat().st_size > 0
    report = (folder / "report.html").read_text()
    page = f"profiles/{profile_folder(folder, row.id).name}/profile.html"
    assert f'<a href="{page}">{profile.bound.verdict}</a>' in report
    assert (folder / page).is_file()


def test_two_side_by_side(eager: Made, swept: Made, tmp_path: Path) -> None:
    (row,) = Run.load(swept[0])
    a, b = eager[0], profile_folder(swept[0], row.id)
    done = command(tmp_path, "profile", a, "--against", b, "--out", "beside.html")
    assert done.returncode == 0, done.stderr
    assert "backend: torch-eager | jax" in done.stdout
    assert "aten::bmm" in done.stdout
    page = (tmp_path / "beside.html").read_text()
    assert "aten::bmm" in page
    assert "only in" in page


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line that a command is refused with."""

    def run(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["mtbench", *words])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err
        assert (end.value.code, len(told.splitlines())) == (2, 1), told
        return told

    return run


def test_a_row_that_is_not_ok_is_not_profiled(swept: Made, tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text((swept[0] / "run.json").read_text())
    told = json.loads((swept[0] / "measurements.jsonl").read_text())
    lines = []
    for seed, status in enumerate(("wrong", "oom", "unsupported", "ok")):
        row = {**told, "seed": seed, "status": status, "reason": f"as {status} as can be"}
        lines.append(json.dumps(row | ({"wall_ms": None} if status == "ok" else {})))
    (folder / "measurements.jsonl").write_text("\n".join(lines) + "\n")
    for seed, says in enumerate(("it is wrong", "it is oom", "it is unsupported", "it has no time")):
        assert says in refused("profile", "run", "--row", f"seed{seed}")
    assert "4 rows have that in their id" in refused("profile", "run", "--row", "jax/chunked")
    assert "has no such row" in refused("profile", "run", "--row", "jax/chunkd")
    assert not (folder / "profiles").exists()


BROKEN = """
from mtbench import FunctionBackend
BACKEND = FunctionBackend(
    name="mine", framework="numpy", functions={("momentum", "fused"): lambda q, k, v, case: v * 2}
)
"""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "--backend is missing"),
        ("--backend torch-eager --seq-len 64,128", "--seq-len 64,128: a profile is of one case"),
        ("--backend torch-eager --form nothing", "has no form 'nothing'"),
        ("--backend native --attention softmax", "does not do this case"),
        ("--backend native --mode forward_backward", "does not do this case (chunked: notimpl"),
        ("--backend triton", "only interpreted on cpu"),
        ("nowhere", "name a row, by --row ID"),
        ("--row x", "name the run's folder, too"),
        ("nowhere --row x", "holds no run"),
        ("nowhere --row x --backend jax", "--row says already what is meant: leave out --backend"),
        ("nowhere --against there", "nowhere holds no profile"),
        ("--against there", "name the profile that it is set beside"),
        ("--backend native --out taken", "taken is there already"),
        ("--backend native --without flames", "--without flames: did you mean 'flame'?"),
        ("--backend native --threads 4000", "--threads 4000: this process may use"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, refused: Refused, words: str, says: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "something").write_text("kept")
    assert says in refused("profile", *words.split())


def test_a_case_that_turns_out_to_be_wrong(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN)
    done = command(tmp_path, "profile", "--backend", "./mine.py", "--seq-len", "16")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "it is wrong, and what is not ok is not profiled" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [("slowest", "slowest:N or fastest:N"), ("slowest:0", "slowest:N"), ("all:3", "slowest:N or fastest:N")],
)
def test_run_refuses_a_choice_it_does_not_know(
    tmp_path: Path, refused: Refused, words: str, says: str
) -> None:
    assert says in refused("run", "--backend", "torch-eager", "--profile", words)
    assert not list(tmp_path.iterdir())  # before anything is measured
