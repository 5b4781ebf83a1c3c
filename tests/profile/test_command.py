"""``mtbench profile`` and ``mtbench run --profile``, whole: real processes, real profilers, real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mtbench.profile.bounds import VERDICTS
from mtbench.profile.names import profile_folder
from mtbench.profile.record import Profile, read_profile
from mtbench.profile.sweeping import choice, profile_rows
from mtbench.results import Run
from tests.profile.conftest import Refused, command
from tests.profile.synthetic import gpu_profile

pytestmark = [pytest.mark.torch, pytest.mark.jax]

SMALL = ("--attention", "momentum", "--form", "chunked", "--seq-len", "64", "--heads", "2", "--threads", "1")


def test_a_profile_of_eager_torch(tmp_path: Path) -> None:
    """All of one, in one test: it takes twenty seconds to make."""
    words = ("--backend", "torch-eager", "--mode", "forward_backward", "--out", "made", "--calls", "5")
    done = command(tmp_path, "profile", *words, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "profile: made/profile.html"
    folder = tmp_path / "made"
    profile = read_profile(folder)
    assert profile.to_json() == (folder / "profile.json").read_text()
    assert profile.bound.verdict in VERDICTS
    assert profile.bound.verdict in done.stdout
    _has_the_time(profile, folder)
    _has_the_memory(profile)
    _has_a_flame_graph(profile, folder)

    (tmp_path / "gpu").mkdir()
    gpu_profile(tmp_path / "gpu")
    done = command(tmp_path, "profile", "made", "--against", "gpu", "--out", "beside.html")
    assert done.returncode == 0, done.stderr
    assert "form: chunked" not in done.stdout  # what is the same is not said
    assert "case: momentum-causal" in done.stdout
    assert "aten::bmm" in done.stdout
    page = (tmp_path / "beside.html").read_text()
    assert "aten::bmm" in page
    assert "only in" in page


def _has_the_time(profile: Profile, folder: Path) -> None:
    seen = profile.traced
    assert seen is not None
    assert seen.calls == 5
    names = {operator.name for operator in seen.operators}
    assert {"aten::bmm", "aten::exp"} & names
    assert profile.work.bytes_from == "its operators"  # chunks in memory are more than q, k, v and o once
    trace = gzip.decompress((folder / "trace.json.gz").read_bytes())
    assert json.loads(trace)["traceEvents"]
    assert json.loads(trace).get("host_name", "") == ""


def _has_the_memory(profile: Profile) -> None:
    allocator, resident = profile.memory
    assert allocator.peak_bytes > 0
    assert allocator.at_peak[0].what.startswith("aten::")
    assert any("torch_forms" in frame for block in allocator.at_peak for frame in block.stack)
    assert resident.points


def _has_a_flame_graph(profile: Profile, folder: Path) -> None:
    if profile.flame is None:
        why = profile.missing["flame"]  # a machine that forbids it, or lacks it: another test wants it there
        assert "ptrace" in why or "not installed" in why
        return
    (call,) = [one for one in profile.flame.children if one.name.startswith("Profiled._call")]
    assert call.seconds > 0.5 * profile.flame.seconds
    assert "speedscope" in json.loads((folder / "flame.speedscope.json").read_text())["$schema"]


def test_rows_of_a_sweep(tmp_path: Path, refused: Refused) -> None:
    """One is profiled after it was timed; then those that are not ok are refused."""
    done = command(tmp_path, "run", "--backend", "jax", *SMALL, "--out", "swept", "--profile", "slowest:1")
    assert done.returncode == 0, done.stderr
    swept = tmp_path / "swept"
    (row,) = Run.load(swept)
    folder = profile_folder(swept, row.id)
    profile = read_profile(folder)
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
    assert (folder / "device-memory.prof.gz").stat().st_size > 0
    page = f"profiles/{folder.name}/profile.html"
    assert f'<a href="{page}">{profile.bound.verdict}</a>' in (swept / "report.html").read_text()
    assert (swept / page).is_file()
    # Where one is there already it stays, and the command goes on.
    complaints: list[str] = []
    again = choice("slowest:3")
    assert profile_rows(swept, again, command=(), tell=lambda text: None, complain=complaints.append) == 0
    assert ["is there already" in line for line in complaints] == [True]
    assert read_profile(folder) == profile
    _refuses_what_is_not_ok(swept, tmp_path / "run", refused)


def _refuses_what_is_not_ok(swept: Path, folder: Path, refused: Refused) -> None:
    folder.mkdir()
    (folder / "run.json").write_text((swept / "run.json").read_text())
    told = json.loads((swept / "measurements.jsonl").read_text())
    lines = []
    for seed, status in enumerate(("wrong", "oom", "unsupported", "ok")):
        row = {**told, "seed": seed, "status": status, "reason": f"as {status} as can be"}
        lines.append(json.dumps(row | ({"wall_ms": None} if status == "ok" else {})))
    (folder / "measurements.jsonl").write_text("\n".join(lines) + "\n")
    for seed, says in enumerate(("it is wrong", "it is oom", "it is unsupported", "it has no time")):
        assert says in refused("profile", "run", "--row", f"seed{seed}")
    assert "4 rows have that in their id" in refused("profile", "run", "--row", "jax/chunked")
    third = Run.load(folder).measurements[2].id
    assert f"run has no such row of its 4; the nearest: {third}, jax" in refused(
        "profile", "run", "--row", "jax/chunkd-seed2"
    )
    told = refused("profile", "run", "--row", "zzz")
    assert "has no such row of its 4; the nearest: jax/chunked/momentum" in told
    assert told.endswith("; every id is in run/measurements.jsonl\n")
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
        ("--attention foo", "unknown attention 'foo': known: softmax, linear, momentum"),
        ("--seq-len x", "--seq-len x: neither a whole number"),
        ("--backend torch-eager --seq-len 64,128", "--seq-len 64,128: a profile is of one case"),
        ("--backend torch-eager --form nothing", "has no form 'nothing'"),
        ("--backend native --attention softmax", "does not do this case"),
        ("--backend native --mode forward_backward", "does not do this case (chunked: notimpl"),
        (
            "--backend triton",
            "only interpreted on cpu, and has no time there, and so no profile: give --device",
        ),
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
    assert [file.name for file in tmp_path.iterdir() if file.is_dir() and "profile" in file.name] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [("slowest", "slowest:N or fastest:N"), ("slowest:0", "slowest:N"), ("all:3", "slowest:N or fastest:N")],
)
def test_run_refuses_a_choice_it_does_not_know(
    tmp_path: Path, refused: Refused, words: str, says: str
) -> None:
    assert says in refused("run", "--backend", "torch-eager", "--profile", words)
    assert not list(tmp_path.iterdir())  # before anything is measured
