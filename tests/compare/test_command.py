"""`mtbench compare` and `mtbench noise` as a user types them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.compare.conftest import BACKENDS, benchmark_file, launches, write_run
from tests.conftest import ROOT


def test_compare(mtbench, two_runs, tmp_path):
    a, b = two_runs
    done = mtbench("compare", a, b, "--markdown", "new/c.md", "--json", "c.json", COLUMNS="160")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("1 slower, 1 faster, 37 same, 1 broken")
    assert [line for line in lines if line.startswith("slower")]
    assert "same " not in "\n".join(lines[:-1])
    assert "commit 0123456789ab and fedcba987654" in done.stdout
    assert "**slower**" in (tmp_path / "new" / "c.md").read_text()
    assert json.loads((tmp_path / "c.json").read_text())["exit_code"] == 1
    every = mtbench("compare", a, b, "--all", COLUMNS="160").stdout.splitlines()
    assert sum(line.startswith("same") for line in every) == 37


def test_exit_codes(mtbench, tmp_path):
    keys = [(backend, 16 * (n + 1)) for backend in BACKENDS for n in range(5)]
    write_run(tmp_path / "a", {key: launches(1.0, seed=n) for n, key in enumerate(keys)})
    write_run(tmp_path / "b", {key: launches(1.0, seed=50 + n) for n, key in enumerate(keys)})
    write_run(tmp_path / "few", {key: launches(1.0, 1) for key in keys})
    write_run(tmp_path / "elsewhere", {key: launches() for key in keys}, cpu="Another CPU", threads=1)
    assert mtbench("compare", "a", "b").returncode == 0
    few = mtbench("compare", "a", "few")
    assert few.returncode == 3
    assert "every case unsure for want of launches" in few.stdout
    assert len(few.stdout.splitlines()) == 2
    refused = mtbench("compare", "a", "elsewhere")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "CPU Some CPU and Another CPU; threads 2 and 1" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert mtbench("compare", "a", "elsewhere", "--across-machines").returncode in (0, 1, 3)


BAD = {
    "compare a nothing": "nothing does not exist",
    "compare a a --effect 0": "--effect 0",
    "compare a a --json a": "--json a cannot be written",
    "noise a": "a second run of the same code is missing",
    "noise a a --effect -3": "--effect -3",
    "noise --preset quik": "unknown preset 'quik'",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(words, mtbench, tmp_path):
    write_run(tmp_path / "a", {("jax", 64): launches()})
    done = mtbench(*words.split())
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, ""), done.stderr
    assert BAD[words] in done.stderr


def test_saved_benchmarks(mtbench, tmp_path):
    for n in range(4):
        times = {f"t{k}": 0.001 * (1 + 0.002 * ((n + k) % 3)) for k in range(8)}
        benchmark_file(tmp_path / "a" / f"{n}.json", times)
        benchmark_file(tmp_path / "b" / f"{n}.json", {**times, "t5": times["t5"] * 1.3})
    done = mtbench("compare", "a", "b")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 slower, 7 same")


def test_noise_of_two_runs(mtbench, tmp_path):
    keys = [(backend, 16 * (n + 1)) for backend in BACKENDS for n in range(5)]
    write_run(tmp_path / "a", {key: launches(1.0, seed=n) for n, key in enumerate(keys)})
    write_run(tmp_path / "b", {key: launches(1.0, seed=50 + n) for n, key in enumerate(keys)})
    done = mtbench("noise", "a", "b", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    assert "1 pair of runs of the same code, 8 launches a side" in done.stdout
    assert not list(tmp_path.glob("**/noise.json"))
    assert mtbench("noise", "a", "b", "--out", "floor").returncode == 0
    assert json.loads((tmp_path / "floor" / "noise.json").read_text())["scatter"][0]["cases"] == 20


def test_noise_measures_pairs_of_runs(mtbench, tmp_path):
    """With a kernel of NumPy, which needs no framework."""
    (tmp_path / "mine.py").write_text(
        "from mtbench import FunctionBackend\n"
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('known', {str(ROOT / 'tests/known/faulty.py')!r})\n"
        "known = importlib.util.module_from_spec(spec); spec.loader.exec_module(known)\n"
        "BACKEND = FunctionBackend(name='mine', framework='numpy',"
        " functions={('softmax', 'right'): known.right})\n"
    )
    done = mtbench("noise", "--backend", "./mine.py", "--launches", "3", "--threads", "1", "--out", "floor")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "floor" / "noise.json").read_text())
    assert data["scatter"][0]["cases"] == 2
    assert (tmp_path / "floor" / "pair-1" / "b" / "run.json").exists()
    again = mtbench("compare", "floor/pair-1/a", "floor/pair-1/b")
    assert again.returncode in (0, 1, 3)
    assert again.stderr == ""


def test_power_script_by_simulation(tmp_path):
    import subprocess
    import sys

    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "scripts" / "comparison_power.py"), "--simulate", "--cases", "40"),
            *("--launches", "8", "--draws", "1", "--lone-trials", "5", "--json", "power.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "power.json").read_text())["launches"]["8"]
    assert figures["slowed_called_faster"] == 0
    assert set(figures["backend_caught_percent"]) == {f"backend-{n}" for n in range(4)}


def test_power_script_of_two_runs(tmp_path, two_runs):
    import subprocess
    import sys

    script = ROOT / "scripts" / "comparison_power.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, two_runs), "--launches", "3,8,20", "--lone-trials", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    shutil.rmtree(two_runs[0])
