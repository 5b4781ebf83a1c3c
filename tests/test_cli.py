"""The words on the command line: what is wrong with them is one line and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtbench.measure.environment import device_problem
from tests.conftest import ROOT, Mtbench

BAD = {
    "--backend sofmax": ("unknown backend 'sofmax'", "torch-eager"),
    "--backend torch-eagre": ("did you mean 'torch-eager'?",),
    "--backend ./nothing.py": ("nothing.py does not exist",),
    "--attention momentun": ("unknown attention 'momentun'", "did you mean 'momentum'?"),
    "--dtype float33": ("unknown dtype 'float33'", "did you mean 'float32'?"),
    "--preset quik": ("unknown preset 'quik'", "did you mean 'quick'?"),
    "--form paralel": ("unknown form 'paralel'", "did you mean 'parallel'?"),
    "--mode backward": ("unknown mode 'backward'",),
    "--seq-len 0": ("--seq-len 0", "at least 1"),
    "--seq-len -5": ("--seq-len -5", "at least 1"),
    "--seq-len 1.5": ("--seq-len 1.5",),
    "--seq-len 256:128:x2": ("--seq-len 256:128:x2", "range"),
    "--seq-len 1:8:x1": ("--seq-len 1:8:x1", "range"),
    "--batch ,": ("--batch ',': no number is there: give one",),
    "--attention ,": ("--attention ',': no name is there: give one",),
    "--form ,": ("--form ',': no name is there",),
    "--beta ,": ("--beta ',': no number is there",),
    "--beta 1": ("beta = 1.0 is outside [0, 1)",),
    "--beta=-0.1": ("beta = -0.1 is outside [0, 1)",),
    "--beta much": ("--beta much: not a number",),
    "--gamma 0": ("gamma = 0.0 must be a positive",),
    "--kv-len 7": ("kv_len = 7", "non-causal"),
    "--kv-heads 3": ("kv_heads = 3 does not divide",),
    "--lengths 3,4": ("2 lengths were given for batch = 1",),
    "--threads 9999": ("--threads 9999",),
    "--timeout 0": ("--timeout 0",),
    "--timeout inf": ("--timeout inf", "finite"),
    "--memory-limit nan": ("--memory-limit nan", "finite"),
    "--memory-limit 1e400": ("--memory-limit inf", "finite"),
    "--memory-limit 1e300": ("--memory-limit 1e+300", "this machine has"),
    "--preset quick --form chunked,paralel": ("unknown form 'paralel'", "did you mean 'parallel'?"),
    "--preset default --form flex --backend triton": ("unknown form 'flex'", "known: fused"),
    "--sed 1": ("No such option: --sed", "`python -m mtbench run --help`"),
    "--seed x": ("--seed x: ", "`python -m mtbench run --help`"),
    "--threads 0": ("--threads 0: ",),
    "--threads=3 --threads=0": ("--threads 0: ",),
    "more": ("unexpected extra argument",),
    "--device gpu": ("unknown device 'gpu'",),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_exit_code_2(words: str, mtbench: Mtbench, tmp_path: Path) -> None:
    done = mtbench("run", *words.split(), "--out", "run")
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for text in BAD[words]:
        assert text in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["report --out runs --effect 3", "generate --out checkpoints --rounds 3"])
def test_an_argument_that_is_missing_is_told(words: str, mtbench: Mtbench) -> None:
    """Though a value of an option is called as the argument is in the program."""
    done = mtbench(*words.split())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "issing argument" in done.stderr


@pytest.mark.skipif(device_problem("cuda") is None, reason="this machine has a GPU")
def test_a_device_that_is_not_there(mtbench: Mtbench) -> None:
    done = mtbench("run", "--device", "cuda")
    assert done.returncode == 2
    assert "device 'cuda' is not there" in done.stderr
    assert "there is: cpu" in done.stderr


def test_an_out_that_cannot_be(mtbench: Mtbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").write_text("{}")
    bad = {"file": "is a file", "full": "already holds a run", "file/x": "cannot be written"}
    for out, says in bad.items():
        done = mtbench("run", "--out", out)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert says in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_the_kind\n", "cannot be loaded: ModuleNotFoundError"),
        ("x = 1\n", "has no BACKEND"),
        ("BACKEND = 3\n", "its BACKEND is 3, not a Backend"),
        ("syntax error\n", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_backend_file_that_is_none(mtbench: Mtbench, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = mtbench("run", "--backend", "./mine.py")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert says in done.stderr


def test_a_report_of_nothing(mtbench: Mtbench) -> None:
    done = mtbench("report", "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "holds no run" in done.stderr


def test_help_names_every_command(mtbench: Mtbench) -> None:
    done = mtbench("--help")
    assert done.returncode == 0
    told = done.stdout.partition("Commands:")[2].splitlines()[1:]
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in told}
    assert set(listed) == {
        "run",
        "report",
        "figures",
        "table",
        "compare",
        "trend",
        "noise",
        "list",
        "train",
        "generate",
        "profile",
    }
    for command, text in listed.items():
        assert text.endswith("."), f"{command} is cut off: {text}"
        assert not text.endswith("...")
    alone = mtbench()
    assert (alone.returncode, alone.stdout) == (2, done.stdout)


def test_help_tells_the_defaults(mtbench: Mtbench) -> None:
    told = " ".join(mtbench("run", "--help").stdout.split())
    for text in ("--batch <str> [default: 1]", "[default: 256,1024]", "[default: float32]", "[default: 0.9]"):
        assert text in told


@pytest.mark.parametrize("words", ["rn", "compare", "compare a", "noise --launches 2", "report", "--nothing"])
def test_words_that_fit_no_command_are_one_line(words: str, mtbench: Mtbench) -> None:
    done = mtbench(*words.split())
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, ""), done
    assert done.stderr.startswith("mtbench: ")
    assert "--help`" in done.stderr


@pytest.mark.parametrize("words", ["run --threads", "train --seeds", "generate --out", "list --sed"])
def test_an_option_with_nothing_after_it_names_its_command_s_help(words: str, mtbench: Mtbench) -> None:
    done = mtbench(*words.split())
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert words.split()[1] in line
    assert f"mtbench {words.split()[0]} --help` has what there is" in line


def test_list_shows_every_backend_and_limit(mtbench: Mtbench) -> None:
    done = mtbench("list", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for text in ("torch-eager", "torch-compile", "triton", "jax", "recurrent", "notimpl", "grouped heads"):
        assert text in done.stdout


LONG = "x" * 300
"""No system has so long a name: it refuses to look whether it is there, as in a folder that is closed."""


@pytest.mark.parametrize(
    "words",
    [
        f"report {LONG}",
        f"compare {LONG} {LONG}",
        f"run --out {LONG}",
        f"run --backend {LONG}.py",
        f"generate {LONG}",
    ],
)
def test_a_path_that_the_system_refuses_is_one_line(words: str, mtbench: Mtbench) -> None:
    done = mtbench(*words.split())
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert LONG in done.stderr
    assert "too long" in done.stderr


SOFTMAX = """
import numpy as np
from mtbench import FunctionBackend

def softmax(q, k, v, case):
    weight = np.tril(np.exp(q @ k.mT * case.softmax_scale))
    return weight @ v / weight.sum(-1, keepdims=True)

BACKEND = FunctionBackend(name="mine", framework="numpy", functions={("softmax", "parallel"): softmax})
"""


def test_a_reader_that_is_gone_costs_no_report(tmp_path: Path) -> None:
    """`mtbench run | head -1`: what is printed at the end has nobody to read it, and the report is there."""
    (tmp_path / "mine.py").write_text(SOFTMAX)
    reader, writer = os.pipe()
    os.close(reader)
    words = "-m mtbench run --backend ./mine.py --attention softmax --heads 1 --seq-len 8 --out run".split()
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    assert " ok " in done.stderr, done
    assert "Traceback" not in done.stderr, done
    assert "mine" in (tmp_path / "run" / "report.html").read_text()
