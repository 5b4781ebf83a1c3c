"""What a kernel does wrong stays in its own row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtbench import AttentionSpec, Case
from mtbench.frameworks import load_framework
from mtbench.measure.clocks import Sampling
from mtbench.results import SCHEMA_VERSION, Measurement, Run
from mtbench.sweep.measure import Measurer
from tests.conftest import Mtbench
from tests.known import faulty

FAULTY = Path(__file__).parents[1] / "known" / "faulty.py"

EXPECTED = {
    "right": ("ok", ""),
    "one_percent_off": ("wrong", "o beyond tolerance: relative error of o 0.01"),
    "changes_its_inputs": ("wrong", "at its second call, after a first that was right: o beyond tolerance"),
    "adds_to_its_last": ("wrong", "at its second call, after a first that was right: o beyond tolerance"),
    "nan": ("wrong", "o beyond tolerance"),
    "wrong_shape": ("wrong", "o is float32 (1, 1, 15, 4), not float32 (1, 1, 16, 4)"),
    "wrong_dtype": ("wrong", "o is float64"),
    "raises": ("error", "RuntimeError: the kernel was not in the mood"),
    "segfault": ("crash", "killed by SIGSEGV), at: first call; Fatal Python error: Segmentation fault"),
    "leaves": ("crash", "exit code 7), at: first call"),
    "hangs": ("timeout", "not done after 3 s, at: first call"),
    "out_of_memory": ("oom", "MemoryError"),
    "allocates_without_end": ("oom", "resident memory passed the limit of 0.4 GiB, at: first call"),
    "forks_and_dies": ("crash", "killed by SIGKILL), at: first call"),
    "prints": ("ok", ""),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Run]:
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("faults") / "run"
    arguments = f"run --backend {FAULTY} --attention softmax --seq-len 16 --heads 1 --head-dim 4"
    limits = f"--timeout 3 --memory-limit 0.4 --out {folder}"
    done = subprocess.run(
        [sys.executable, "-m", "mtbench", *arguments.split(), *limits.split()],
        env={**os.environ, "PYTHONPATH": str(FAULTY.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, Run.load(folder)


@pytest.fixture(scope="module")
def rows(run: tuple[int, Run]) -> dict[str, Measurement]:
    return {row.form: row for row in run[1]}


@pytest.mark.parametrize("form", EXPECTED)
def test_every_fault_is_a_row(rows: dict[str, Measurement], form: str) -> None:
    status, reason = EXPECTED[form]
    assert rows[form].status == status
    assert reason in rows[form].reason
    assert "\n" not in rows[form].reason


def test_a_kernel_that_writes_into_its_inputs_costs_no_other() -> None:
    """In one process, whose truth and inputs are the same for all forms of a case."""
    case = Case(spec=AttentionSpec(kind="softmax"), heads=1, seq_len=8, head_dim=4)
    measurer = Measurer(faulty.BACKEND, load_framework("numpy"), "cpu")
    sampling = Sampling(least_s=0.0, limit_s=0.01, warmup_s=0.0)
    forms = ("changes_its_inputs", "right")
    found = [measurer.measure(case, form, sampling, lambda stage: None) for form in forms]
    assert [row.status for row in found] == ["wrong", "ok"]


def test_no_row_is_lost_and_none_is_twice(run: tuple[int, Run]) -> None:
    assert [row.form for row in run[1]] == list(EXPECTED)
    assert [row.id for row in run[1]] == run[1].header["plan"]["rows"]


def test_only_what_is_right_is_timed_and_ranked(rows: dict[str, Measurement]) -> None:
    assert {form for form, row in rows.items() if row.ranked} == {"right", "prints"}
    for form in ("right", "prints"):
        assert rows[form].wall_ms is not None
        assert len(rows[form].wall_ms.values) >= 30
        assert rows[form].peak_memory_bytes is not None
        assert rows[form].device_ms is None
        assert rows[form].device_reason


def test_the_exit_code_tells_of_failures(run: tuple[int, Run]) -> None:
    assert run[0] == 1


def test_what_it_printed_is_in_its_log(run: tuple[int, Run]) -> None:
    log = (run[1].folder / "logs" / "faulty-cpu.log").read_text()
    assert '{"row": {}}' in log
    assert "Segmentation fault" in log


def test_everything_promised_is_in_the_folder(run: tuple[int, Run]) -> None:
    folder = run[1].folder
    made = ("report.html", "measurements.csv", "pytest-benchmark.json")
    for name in ("run.json", "measurements.jsonl", *made):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "figures").glob("*.svg"))
    assert list((folder / "figures").glob("*.png"))


def test_the_header_tells_how_it_was_made(run: tuple[int, Run]) -> None:
    header = run[1].header
    assert header["outcome"] == "complete"
    assert header["command"][:2] == ["mtbench", "run"]
    assert not any(word.startswith(("/", "..")) for word in header["command"])
    assert "host" not in header["environment"]
    for key in ("cpu", "memory_bytes", "python", "packages", "threads"):
        assert header["environment"][key], key
    assert json.loads((run[1].folder / "run.json").read_text())["schema"] == SCHEMA_VERSION


def test_nothing_outlives_a_killed_runner(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys
    import time

    import psutil

    folder = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mtbench", "run", "--backend", str(FAULTY), "--attention", "softmax"),
            *("--form", "hangs", "--seq-len", "16", "--heads", "1", "--out", str(folder)),
        ],
        env={**os.environ, "PYTHONPATH": str(FAULTY.parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not workers and time.monotonic() < deadline:
        workers = psutil.Process(process.pid).children()
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert workers
    assert not alive


def test_the_ten_line_backend_of_the_docstring_works(tmp_path: Path, mtbench: Mtbench) -> None:
    (tmp_path / "mine.py").write_text(
        "from helper import attention\n"
        "from mtbench import FunctionBackend\n"
        "BACKEND = FunctionBackend(name='mine', framework='numpy',"
        " functions={('softmax', 'plain'): attention})\n"
    )
    # What lies beside the file can be imported.
    (tmp_path / "helper.py").write_text(
        FAULTY.read_text().split("def one_percent_off")[0].replace("def right", "def attention")
    )
    done = mtbench("run", "--backend", "./mine.py", "--attention", "softmax", "--seq-len", "8", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert [row.status for row in Run.load(tmp_path / "r")] == ["ok"]


def test_a_worker_that_ends_over_the_ceilings_is_replaced(tmp_path: Path, mtbench: Mtbench) -> None:
    """Memory for the copy is not to be had, and the row needs none of it."""
    where = f"--memory-limit 0.15 --out {tmp_path / 'run'}"
    what = "--attention softmax --form right --seq-len 16 --heads 1 --head-dim 4"
    done = mtbench("run", "--backend", FAULTY, *what.split(), *where.split())
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "run")
    assert [row.status for row in run] == ["ok"]
    (worker,) = run.header["workers"].values()
    assert (worker["copy_bytes_per_s"], worker["matmul_flop_per_s"]) == (None, {})


def test_a_run_has_the_ceilings_of_its_machine(tmp_path: Path, mtbench: Mtbench) -> None:
    what = "--attention softmax --form right --seq-len 16 --heads 1 --head-dim 4"
    done = mtbench("run", "--backend", FAULTY, *what.split(), "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = Run.load(tmp_path / "run").ceilings[""]["cpu"]
    assert found.copy_bytes_per_s is not None
    assert found.matmul("float32") is not None
    assert "of the roofline" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("torch-eager", marks=pytest.mark.torch),
        pytest.param("jax", marks=pytest.mark.jax),
    ],
)
def test_a_case_too_large_for_any_memory_is_a_row_and_the_sweep_goes_on(
    backend: str, tmp_path: Path, mtbench: Mtbench
) -> None:
    """Scores of 4 TB, inputs that no address space holds, and then a small case."""
    sizes = "1000000,10000000000000000000,8"
    what = f"--attention linear --form parallel --seq-len {sizes} --heads 1 --head-dim 1 --by-backend"
    done = mtbench("run", "--backend", backend, *what.split(), "--out", "r")
    assert done.returncode == 0, done.stderr
    rows = list(Run.load(tmp_path / "r"))
    assert [row.status for row in rows] == ["oom", "oom", "ok"], [row.reason for row in rows]
    assert "1.0e+19 numbers" in rows[1].reason
